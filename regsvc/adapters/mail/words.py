"""The words of the letters, a file a language (`templates/words/<BCP 47 tag>.toml`).

All that does not differ from mail to mail is rendered here, once; a translation that asks for what it does not get
(a user's name in a subject, say) stops the start and not a mail.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jinja2

from regsvc.domain.delivery import Letter

FALLBACK: Final = "en"
_TEMPLATES: Final = Path(__file__).with_name("templates")
UNKNOWN: Final = "unknown"  # what a device is called that said nothing of itself
BROWSER: Final = "a browser"  # and one whose browser nobody knows
_UNITS: Final = (("seconds", 1, 120), ("minutes", 60, 120), ("hours", 3600, 72), ("days", 86400, 1000))


@dataclass(frozen=True, slots=True)
class Words:
    """What one letter says in one language: fixed texts, and templates of what differs from mail to mail."""

    language: str
    subject: str
    lead: str
    stranger: str
    footer: str
    browser: str
    nameless: str
    life: jinja2.Template | None  # of what the letter carries
    beside: jinja2.Template | None  # above the link that does the same
    following: str | None  # on that link
    action: str | None  # on the way to a new password
    bare: str | None  # above a token that programs take
    unnamed: str  # the greeting of whoever has no name
    greeting: jinja2.Template
    when: jinja2.Template
    device: jinja2.Template
    place: jinja2.Template
    units: Mapping[str, jinja2.Template]

    def lives(self, lifetime: timedelta | None) -> str | None:
        """Say how long what the letter carries is good."""
        if self.life is None or lifetime is None:
            return None
        return self.life.render(lifetime=self.lifetime(lifetime))

    def stands_beside(self, lifetime: timedelta | None) -> str | None:
        """Say what the link beside a code is, and how long it is good."""
        if self.beside is None or lifetime is None:
            return None
        return self.beside.render(lifetime=self.lifetime(lifetime))

    def lifetime(self, lifetime: timedelta) -> str:
        """Say a duration, rounded down to a number of at most three digits."""
        seconds = int(lifetime.total_seconds())
        for unit, size, most in _UNITS:
            if seconds < size * most and not (unit == "seconds" and seconds == 60):
                return self.units[unit].render(n=seconds // size)
        raise ValueError(f"no code lives for {lifetime}")

    def happened(self, at: datetime) -> str:
        """Say when something happened, to the minute, as people of all countries read it (ISO 8601)."""
        return self.when.render(at=f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC")

    def used(self, device: str | None) -> str:
        """Say on which device, told as `domain.session.device` does; None: one whose name cannot be shown."""
        if device is None or device == UNKNOWN:
            return self.device.render(device=self.nameless)
        program, _, system = device.partition(" on ")
        named = self.browser if program == BROWSER else program
        return self.device.render(device=self.place.render(program=named, system=system) if system else named)


def read_words(service: str) -> dict[str, dict[Letter, Words]]:
    """Read all languages, by tag in lower case. Raises ValueError when one says less, or more, than the fallback."""
    files = {file.stem.lower(): file for file in (_TEMPLATES / "words").glob("*.toml")}
    texts = {tag: _flat(tomllib.loads(file.read_text("utf-8"))) for tag, file in files.items()}
    for tag, said in texts.items():
        if differing := texts[FALLBACK].keys() ^ said.keys():
            names = ", ".join(sorted(differing))
            raise ValueError(f"templates/words/{tag}.toml and {FALLBACK}.toml differ in {names}")
    made = {tag: _compiled(said, service) for tag, said in texts.items()}
    return {tag: {letter: _words(tag, letter, said) for letter in Letter} for tag, said in made.items()}


def _compiled(said: Mapping[str, str], service: str) -> dict[str, jinja2.Template]:
    """Compile the texts of a language, once for all letters: it is half of a worker's start otherwise."""
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - the layouts escape
    plain.globals["service"] = service
    return {key: plain.from_string(text) for key, text in said.items()}


def _flat(read: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in read.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[key] = str(value)
    return flat


def _words(tag: str, letter: Letter, made: Mapping[str, jinja2.Template]) -> Words:
    own = {key.partition(".")[2]: text for key, text in made.items() if key.startswith(f"{letter.value}.")}
    words = Words(
        language=tag,
        subject=own["subject"].render(),
        lead=own["lead"].render(),
        stranger=own["stranger"].render(),
        footer=made["footer"].render(),
        browser=made["browser"].render(),
        nameless=made["nameless"].render(),
        life=own.get("life"),
        beside=own.get("beside"),
        following=own["following"].render() if "following" in own else None,
        action=own["action"].render() if "action" in own else None,
        bare=own["bare"].render() if "bare" in own else None,
        unnamed=made["greeting"].render(name=None),
        greeting=made["greeting"],
        when=made["when"],
        device=made["device"],
        place=made["place"],
        units={unit: made[unit] for unit, _, _ in _UNITS},
    )
    for _, size, most in _UNITS:
        words.lives(timedelta(seconds=size * (most - 1)))
        words.stands_beside(timedelta(seconds=size * (most - 1)))
    words.greeting.render(name="somebody")
    words.happened(datetime.fromtimestamp(0, UTC))
    words.used(f"{BROWSER} on it")
    return words
