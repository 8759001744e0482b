"""Letters: what is in them, and above all what is not."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.mail import Letters
from regsvc.adapters.mail import words as room
from regsvc.adapters.mail.letters import Written
from regsvc.domain.delivery import Letter, Rejected
from regsvc.domain.values import Email
from tests.adapters.reading import HOME, LETTERS, Visible, parts, written
from tests.adapters.writing import dispatch, links

WORDS = Path(room.__file__).parent / "templates" / "words"
codes = st.integers(4, 10).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n))
code_letters = st.sampled_from([Letter.ACTIVATION, Letter.VERIFY, Letter.CHANGE_EMAIL])
locales = st.sampled_from([None, "en", "de", "de-AT", "fr", "zh-Hant-TW"])


names = st.none() | st.text(max_size=40)


@given(letter=code_letters, code=codes, link=links, username=names, locale=locales, seconds=st.integers(10, 86_400))
def test_the_code_is_the_only_number_of_its_length_and_alone_on_its_line(
    letter: Letter, code: str, link: str, username: str | None, locale: str | None, seconds: int
) -> None:
    asked = {"letter": letter, "code": code, "link": link, "username": username, "locale": locale, "seconds": seconds}
    message, text, html = parts(written(HOME, **asked))
    seen = "".join(Visible(html).words)
    for where in (text, html, seen):
        assert [run for run in re.findall(r"\d+", where) if len(run) >= len(code)] == [code]
        assert [line.strip() for line in where.splitlines() if code in line] == [code]
    shown = f"{message['From']} {message['Subject']}"
    assert not [run for run in re.findall(r"\d+", shown) if len(run) >= len(code)]


@given(letter=code_letters, code=codes, link=links, locale=locales)
def test_the_code_is_found_in_the_raw_body_too(letter: Letter, code: str, link: str, locale: str | None) -> None:
    raw = written(HOME, letter=letter, code=code, link=link, locale=locale).raw.decode("ascii")
    body = raw.partition("\r\n\r\n")[2]
    assert [run for run in re.findall(r"\d+", body) if len(run) >= len(code)] == [code, code]
    assert re.findall(r"(?m)^(\d+)\r$", body) == [code, code]


def test_a_letter_says_what_it_is() -> None:
    asked = dispatch("Kim@Bücher.test")
    letter = LETTERS.write(asked)
    assert isinstance(letter, Written)
    message, text, html = parts(letter)
    assert {name: value for name, value in message.items() if name not in {"Date", "Content-Type"}} == {
        "From": "regsvc <no-reply@service.test>",
        "To": "Kim@xn--bcher-kva.test",
        "Subject": "Your activation code for regsvc",
        "Message-ID": f"<{asked.id}@service.test>",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "MIME-Version": "1.0",
        "Content-Language": "en",
    }
    assert message.get_content_type() == "multipart/alternative"
    assert message["Date"].datetime is not None
    assert (letter.sender, letter.to, letter.utf8) == ("no-reply@service.test", "Kim@xn--bcher-kva.test", False)
    assert (letter.text, letter.html) == (text.replace("\r\n", "\n"), html.replace("\r\n", "\n"))
    assert "0471" not in str(message["Subject"])
    assert "0471" not in repr(letter)


def test_a_message_id_is_stable_over_tries() -> None:
    asked = dispatch()
    letters = [LETTERS.write(asked) for _ in range(2)]
    ids = {parts(letter)[0]["Message-ID"] for letter in letters if isinstance(letter, Written)}
    assert ids == {f"<{asked.id}@service.test>"}


@given(st.emails())
def test_any_address_arrives_in_header_and_envelope(address: str) -> None:
    email = Email.parse(address)
    letter = LETTERS.write(dispatch(address))
    if not isinstance(email, Email):
        assert letter == Rejected("not an e-mail address")
        return
    assert isinstance(letter, Written)
    message, _, _ = parts(letter)
    assert len(message["To"].addresses) == 1
    assert message["To"].addresses[0].addr_spec == letter.to
    assert letter.to.partition("@")[0] == address.partition("@")[0]


@pytest.mark.parametrize(
    "address", ["kim@example.test\r\nBcc: all@example.test", "a\0@example.test", "kim@example.test,sam@b.test", "kim"]
)
def test_what_would_be_another_header_is_rejected(address: str) -> None:
    assert LETTERS.write(dispatch(address)) == Rejected("not an e-mail address")


def test_the_longest_address_is_not_broken() -> None:
    address = "a" * 64 + "@" + ".".join(["b" * 60] * 3) + ".test"
    message, _, _ = parts(written(to=address))
    assert message["To"].addresses[0].addr_spec == address


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("kim", True),
        ("kim2", True),
        ("kim2026", False),  # a number as long as the code
        ("kim２０２６", False),
        ("win.example.com", False),  # programs make a link of it
        ("win．example", False),
        (None, False),
    ],
)
def test_a_name_is_shown_where_it_does_no_harm(name: str | None, shown: bool) -> None:  # noqa: FBT001 - a parameter of the test
    letter = written(username=name)
    assert letter.text.startswith(f"Hello {name},\n" if shown else "Hello,\n")
    assert name is None or (name in letter.html) is shown


def test_a_name_is_escaped() -> None:
    letter = written(username="<a href='//evil'>{{ code }}", link=None)
    assert "a" not in Visible(letter.html).tags
    assert "<a href='//evil'>{{ code }}" in "".join(Visible(letter.html).words)


def test_the_last_link_is_the_public_address_where_it_holds_no_number_like_a_code() -> None:
    home = Letters(sender="a@service.test", public_url="https://service.test/?a=1&b=2", service="regsvc")
    letter = written(home, link=None)
    assert Visible(letter.html).links == ["https://service.test/?a=1&b=2"]
    assert "https://service.test/?a=1&b=2\n" in letter.text
    assert Visible(written(code="0471", link=None).html).links == []  # the port has four digits too
    assert Visible(written(code="004711", link=None).html).links == ["http://127.0.0.1:8000"]


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("de", "de"),
        ("DE-at-1996", "de"),
        ("en-GB", "en"),
        ("fr", "en"),
        (None, "en"),
        ("", "en"),
        ("dex", "en"),
        ("zh-Hant-TW", "en"),
    ],
)
def test_a_letter_is_in_the_readers_language_or_in_english(locale: str | None, language: str) -> None:
    letter = written(locale=locale)
    assert parts(letter)[0]["Content-Language"] == language
    assert f'lang="{language}"' in letter.html
    assert letter.subject.startswith({"de": "Ihr Aktivierungscode für", "en": "Your activation code for"}[language])


def test_german_letters_are_readable_and_seven_bits() -> None:
    message, text, _ = parts(written(locale="de", seconds=600))
    assert message["Subject"] == "Ihr Aktivierungscode für regsvc"
    assert "Der Code gilt 10 Minuten lang" in text
    assert written(locale="de").raw.isascii()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "1 second,"),
        (10, "10 seconds,"),
        (59.9, "59 seconds,"),
        (60, "1 minute,"),
        (90, "90 seconds,"),
        (119, "119 seconds,"),
        (120, "2 minutes,"),
        (7_199, "119 minutes,"),
        (7_200, "2 hours,"),
        (86_400, "24 hours,"),
        (3 * 86_400, "3 days,"),
    ],
)
def test_how_long_a_code_lives_is_said_in_words_and_never_too_long(seconds: float, said: str) -> None:
    assert f"The code works for {said} once." in written(seconds=seconds).text


def test_no_code_lives_for_years() -> None:
    with pytest.raises(ValueError, match="no code lives for"):
        written(seconds=timedelta(days=1000).total_seconds())


def test_every_language_can_say_every_letter_without_a_digit_or_markup() -> None:
    assert LETTERS.languages == {file.stem for file in WORDS.glob("*.toml")} >= {"en", "de"}
    english = tomllib.loads((WORDS / "en.toml").read_text("utf-8"))
    assert {letter.value for letter in Letter} == {key for key, value in english.items() if isinstance(value, dict)}
    for language in LETTERS.languages:
        for letter in Letter:
            assert (
                tomllib.loads((WORDS / f"{language}.toml").read_text("utf-8"))[letter.value].keys()
                == english[letter.value].keys()
            )


def test_a_language_that_lacks_a_word_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    templates = tmp_path / "templates"
    (templates / "words").mkdir(parents=True)
    for file in ("letter.txt", "letter.html", "words/en.toml", "words/de.toml"):
        (templates / file).write_text((WORDS.parent / file).read_text("utf-8"), "utf-8")
    (templates / "words" / "x-test.toml").write_text((WORDS / "en.toml").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(room, "_TEMPLATES", templates)
    assert "x-test" in Letters(sender="a@b.test", public_url="https://b.test", service="b").languages
    (templates / "words" / "de.toml").write_text('[activation]\nsubject = "Hallo"\n', "utf-8")
    with pytest.raises(ValueError, match=r"de\.toml and en\.toml differ in activation\.beside, "):
        Letters(sender="a@b.test", public_url="https://b.test", service="b")


@pytest.mark.parametrize(
    ("knob", "value", "why"),
    [
        ("sender", "nobody", "no e-mail address"),
        ("sender", "a@b.test\r\nBcc: c@d.test", "no e-mail address"),
        ("sender", "kim@bücher.test", "in ASCII"),
        ("sender", "Since 1984 <a@b.test>", "a number as long as a code"),
        ("service", "Shop 2026", "a number as long as a code"),
        ("service", "two\nlines", "not one line"),
        ("service", "", "is empty"),
        ("public_url", "service.test", "no http"),
        ("public_url", "javascript:alert(1)", "no http"),
        ("public_url", "https://service.test/ x", "no http"),
    ],
)
def test_what_cannot_stand_in_a_letter_stops_the_start(knob: str, value: str, why: str) -> None:
    knobs = {"sender": "a@b.test", "public_url": "https://b.test", "service": "b", knob: value}
    with pytest.raises(ValueError, match=why):
        Letters(**knobs)


def test_the_style_sheet_is_in_the_elements() -> None:
    html = written().html
    assert "<style" not in html
    assert re.search(r'<p class="code" style="[^"]*font-size: 36px', html)
