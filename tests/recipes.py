"""How docs/recipes.md is made: requests as curl commands, run against a real service, with what it answered.

`python -m tests.recipes` writes the page anew; a test holds it to the route table and to a run of its own. Where curl
is not installed, httpx asks the same.
"""

import json
import re
import shutil
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any, Final

import httpx

from tests.letters import wait_letter
from tests.service import Service, running
from tests.waiting import LOOK_EVERY

PAGE: Final = Path(__file__).parent.parent / "docs" / "recipes.md"
HOST: Final = "localhost:8000"
ADMIN: Final = "what-a-machine-shows-to-administer"
SETTINGS: Final = {"RESEND_COOLDOWN": "0", "PASSWORD_ROUNDS": "4", "ADMIN_TOKEN": ADMIN, "MAIL_CHANNEL": "mailbox"}
VARIABLE: Final = re.compile(r"\$([A-Z_]+)")
LINES_MAX: Final = 30  # of an answer that is shown
LINES_LEFT: Final = 4  # of one with more, and of pages: their beginning tells what they are
HEAD: Final = """\
# Recipes

Every route as a `curl` command, with what a real service answered: `python -m tests.recipes` wrote this page, and a
test takes each of them again. Ids, tokens and times are shortened. `$ACCESS` and its like stand for what an answer or
a mail before had; what they are is said where they are first kept. The service was started with

```console
{start}
```

so that mails are read at `/dev/mail`. The same routes answer under `/api/v1`, and most of them without a prefix:
`/openapi.json` has every path. [client.py](client.py) does the same in Python.
"""
SHORTENED: Final = (
    (re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), r"\1-…"),
    (re.compile(r"\b(\d{4}-\d\d-\d\d)T[\d:.]+Z"), r"\1T…Z"),
    (re.compile(r"\b(eyJ[\w-]{9})[\w-]+\.[\w-]+\.[\w-]+"), r"\1…"),
    (re.compile(r'(?<=")([\w-]{8})[\w-]{23,}(?=")'), r"\1…"),
    (re.compile(r'(?<="next": ")([\w-]{8})[\w-]+'), r"\1…"),
    (re.compile(r'(?<=\{"instance": ")[^"]+'), "accounts-1"),
    (re.compile(r'(?<="version": "0.1.0",\n  "instance": ")[^"]+'), "accounts-1"),
    (re.compile(r"(localhost|127\.0\.0\.1):\d+"), r"\1:8000"),
)

CHANGING: Final = (
    (re.compile(r"\b[0-9a-f]{8}-…"), "ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT…Z"), "TIME"),
    (re.compile(r'(?<=")(eyJ[\w-]{9}|[\w-]{8})…'), "TOKEN"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "KEY"),
    (re.compile(r'(?<="latency_ms": )[\d.]+'), "MILLISECONDS"),
    (re.compile(r"(?m)(?<=\} )[\d.]+$"), "COUNT"),
)


@dataclass(frozen=True)
class Letter:
    """The newest letter to an address that has what `having` finds, once there are `number` of them."""

    to: str
    having: re.Pattern[str]
    number: int = 1


@dataclass(frozen=True)
class Recipe:
    """One request as the page shows it. `$NAME` in it stands for what was kept under NAME.

    who: Basic credentials, with a colon, else a bearer token. keep: NAME, and where in the answer it is, with dots.
    until: what the answer has to hold; it is asked again until then. seconds: of a stream, which never ends.
    """

    title: str
    request: str
    body: Mapping[str, Any] | None = None
    who: str | None = None
    says: str = ""
    status: int = 200
    keep: Mapping[str, str] = field(default_factory=dict)
    mail: Mapping[str, Letter] = field(default_factory=dict)
    until: str = ""
    seconds: int = 0

    @property
    def method(self) -> str:
        return self.request.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.request.partition(" ")[2]

    def command(self) -> str:
        """Return it as curl, on a line or several."""
        method = "" if self.method == ("GET" if self.body is None else "POST") else f"-X {self.method} "
        stream = f"-N -m {self.seconds} " if self.seconds else ""
        parts = [f"curl -s {stream}{method}{_shell(HOST + self.path)}"]
        if self.who is not None:
            parts.append(
                f"-u {_shell(self.who)}" if ":" in self.who else f"-H {_shell(f'Authorization: Bearer {self.who}')}"
            )
        if self.body is not None:
            parts += ["-H 'Content-Type: application/json'", f"-d {_shell(json.dumps(self.body, ensure_ascii=False))}"]
        return " \\\n  ".join(parts)


@dataclass(frozen=True)
class Answer:
    """What the service said."""

    status: int
    body: str

    def shown(self) -> str:
        """Write it for the page: JSON over lines, everything long cut."""
        try:
            text, most = json.dumps(json.loads(self.body), indent=2, ensure_ascii=False), LINES_MAX
        except json.JSONDecodeError:
            text, most = self.body, LINES_LEFT
        for pattern, short in SHORTENED:
            text = pattern.sub(short, text)
        lines = text.splitlines()
        return text if len(lines) <= most else "\n".join([*lines[:LINES_LEFT], "…"])


def _shell(text: str) -> str:
    """Quote for a shell; variables in it are still put in."""
    if not VARIABLE.search(text):
        return text if re.fullmatch(r"[\w./:-]+", text) else quote(text)
    return text if re.fullmatch(r"[\w./:$-]+", text) else '"' + re.sub(r'(["\\`])', r"\\\1", text) + '"'


def _filled(text: str, kept: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda found: kept[found[1]], text)


def _curl(recipe: Recipe, service: Service, kept: Mapping[str, str]) -> Answer:
    command = f"{recipe.command().replace(HOST, f'localhost:{service.port}')} -w '\\n%{{http_code}}'"
    ran = subprocess.run(
        ["bash", "-c", command],
        env=dict(kept),
        capture_output=True,
        text=True,
        timeout=20,
        check=not recipe.seconds,  # curl says that there would have been more
    )
    body, _, status = ran.stdout.rpartition("\n")
    return Answer(int(status), body)


def _ask(recipe: Recipe, service: Service, kept: Mapping[str, str]) -> Answer:
    """Do what curl would."""
    who = _filled(recipe.who or "", kept)
    name, colon, password = who.partition(":")
    with httpx.stream(
        recipe.method,
        service.url + _filled(recipe.path, kept),
        json=None if recipe.body is None else json.loads(_filled(json.dumps(recipe.body), kept)),
        auth=httpx.BasicAuth(name, password) if colon else None,
        headers={"User-Agent": "curl", **({"Authorization": f"Bearer {who}"} if who and not colon else {})},
    ) as answer:
        if recipe.seconds:
            return Answer(answer.status_code, next(answer.iter_text()))
        return Answer(answer.status_code, answer.read().decode())


def take(recipes: Mapping[str, tuple[Recipe, ...]], service: Service) -> Iterator[tuple[Recipe, Answer]]:
    """Run the recipes one after the other; yield what each was answered."""
    kept = {"PATH": "/usr/local/bin:/usr/bin:/bin", "ADMIN": ADMIN}
    ask = _curl if shutil.which("curl") else _ask
    for recipe in (recipe for chapter in recipes.values() for recipe in chapter):
        answer = ask(recipe, service, kept)
        while recipe.until not in answer.body:
            time.sleep(LOOK_EVERY)
            answer = ask(recipe, service, kept)
        assert answer.status == recipe.status, f"{recipe.command()}\n{answer}"
        for name, way in recipe.keep.items():
            kept[name] = _found(json.loads(answer.body), way)
        for name, letter in recipe.mail.items():
            kept[name] = wait_letter(service.url, letter.to, having=letter.having, number=letter.number)
        yield recipe, answer


def _found(value: Any, way: str) -> str:
    for step in way.split("."):
        value = value[int(step) if step.isdigit() else step]
    return str(value)


def written(recipe: Recipe, answer: Answer, *, again: bool) -> str:
    """Write a recipe for the page, without the answer when it is there already."""
    keeps = [f"`${name}` is its `{way}`." for name, way in recipe.keep.items()]
    keeps += [f"`${name}` is in the mail to {letter.to}." for name, letter in recipe.mail.items()]
    says = textwrap.fill(" ".join([recipe.says, f"Answer: {answer.status}.", *keeps]).strip(), 120)
    shown = "" if again else answer.shown()
    language = "json" if shown.startswith(("{", "[")) else "text"
    block = f"\n```{language}\n{shown}\n```\n" if shown else ""
    return f"### {recipe.title}\n\n```console\n{recipe.command()}\n```\n\n{says}\n{block}"


def plain(text: str) -> str:
    """Return what is the same each time."""
    for pattern, name in CHANGING:
        text = pattern.sub(name, text)
    return text.strip()


def sections(recipes: Mapping[str, tuple[Recipe, ...]], service: Service) -> Iterator[str]:
    """Run all recipes; yield the page's parts, each with its heading."""
    taken, seen = take(recipes, service), set()
    start = " \\\n  ".join([*(f"REGSVC_{name}={quote(value)}" for name, value in SETTINGS.items()), "regsvc serve"])
    yield HEAD.format(start=start)
    for title, chapter in recipes.items():
        yield f"## {title}\n"
        for _ in chapter:
            recipe, answer = next(taken)
            command = recipe.command()
            yield written(recipe, answer, again=command in seen)
            seen.add(command)


def main() -> None:
    """Write the page anew."""
    from tests.cookbook import BOOK  # noqa: PLC0415 - it is written in the words of this file

    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), ENABLE_RATE_LIMITING="true", **SETTINGS) as service,
    ):
        PAGE.write_text("\n".join(sections(BOOK, service)), "utf-8")


if __name__ == "__main__":
    main()
