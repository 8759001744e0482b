"""The letters beside the first: the way to a new password, and notices of what happened."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.adapters.mail import Letters
from regsvc.adapters.mail import words as room
from regsvc.domain import session
from regsvc.domain.delivery import Letter
from tests.adapters.reading import HOME, LETTERS, Visible, parts, written
from tests.adapters.writing import LINK, TOKEN, dispatch, links, tokens

WORDS = Path(room.__file__).parent / "templates" / "words"
LANGUAGES = sorted(LETTERS.languages)
NOTICES = [letter for letter in Letter if letter.notice]
# What a new password is the answer to:
RESETS = [Letter.RESET, Letter.PASSWORD_CHANGED, Letter.NEW_DEVICE, Letter.REGISTERED_AGAIN]
BROWSERS = {
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0": "Firefox on Windows",
    "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 SamsungBrowser/28.0 Chrome/130.0 Mobile Safari/537.36": (
        "Samsung Internet on Android"
    ),
    "Mozilla/5.0 (X11; Linux x86_64) Nobody/1.0": "a browser on Linux",
    "Mozilla/5.0": "a browser",
    "curl/8.11.0": "curl",
    "python-httpx/0.28.1": "python-httpx",
}


# ------------------------------------------------------------------------------------------------ a new password


@given(token=tokens, locale=st.sampled_from(["en", "de"]), name=st.none() | st.text(max_size=40))
def test_a_token_is_alone_on_its_line_and_in_one_link(token: str, locale: str, name: str | None) -> None:
    letter = written(letter=Letter.RESET, code=token, locale=locale, username=name, seconds=600)
    message, text, html = parts(letter)
    seen = Visible(html)
    link = f"http://127.0.0.1:8000/reset-password#token={token}"
    assert [line for line in text.splitlines() if token in line] == [link, token]
    assert [line.strip() for line in "".join(seen.words).splitlines() if token in line] == [token]
    assert seen.links == [link, "http://127.0.0.1:8000"]
    assert token not in "".join(f"{name}: {value}" for name, value in message.items())
    assert re.findall(r"(?m)^([\w-]{43})\r$", letter.raw.decode("ascii").partition("\r\n\r\n")[2]) == [token, token]
    assert token not in repr(letter)


def test_a_token_says_how_long_it_lives() -> None:
    assert "Both work for 10 minutes, once." in written(letter=Letter.RESET, seconds=600).text
    german = written(letter=Letter.RESET, seconds=600, locale="de")
    assert "Beide gelten 10 Minuten lang" in german.text
    assert german.raw.isascii()


@pytest.mark.parametrize("public_url", ["https://service.test", "https://service.test/", "https://b.test/accounts/"])
def test_the_way_to_a_new_password_is_under_the_public_address(public_url: str) -> None:
    letters = Letters(sender="a@service.test", public_url=public_url, service="regsvc")
    way = f"{public_url.rstrip('/')}/reset-password"
    assert Visible(written(letters, letter=Letter.RESET).html).links == [f"{way}#token={TOKEN}", public_url]
    assert f"\n{way}#token={TOKEN}\n" in written(letters, letter=Letter.RESET).text
    for notice in NOTICES:
        letter = written(letters, letter=notice)
        links = [way, public_url] if notice in RESETS else [public_url]
        assert Visible(letter.html).links == links
        assert [line for line in letter.text.splitlines() if "://" in line] == links


# ---------------------------------------------------------------------------------------- a link beside the code


@given(link=links, locale=st.sampled_from(["en", "de"]), name=st.none() | st.text(max_size=40))
def test_a_link_stands_on_one_line_after_the_code_and_its_token_nowhere_else(
    link: str, locale: str, name: str | None
) -> None:
    letter = written(HOME, link=link, locale=locale, username=name)
    message, text, html = parts(letter)
    way = f"https://service.test/activate#{link}"
    lines = [line for line in text.splitlines() if "0471" in line or link in line]
    assert lines == ["0471", way]
    seen = Visible(html)
    assert seen.links == [way, "https://service.test"]
    assert link not in "".join(seen.words), "who reads the words to somebody does not read it out"
    assert html.index("0471") < html.index(link)
    assert link not in "".join(f"{name}: {value}" for name, value in message.items())
    assert link not in repr(letter)
    assert link not in repr(dispatch(link=link))


@pytest.mark.parametrize(
    ("public_url", "begins"),
    [
        ("https://service.test/", "https://service.test/activate#"),
        ("http://10.0.0.1:8000", "http://10.0.0.1:08000/activate#"),  # the default in dev, but for the host
        ("http://10.0.0.1:8000/sign-up", "http://10.0.0.1:08000/sign-up/activate#"),
        ("http://10.0.0.1:54321", "http://10.0.0.1:54321/activate#"),
        ("http://10.0.0.1:80", "http://10.0.0.1:80/activate#"),
        ("https://b.test/2026/", None),  # a year, too: there is no link then, but the code
    ],
)
def test_the_link_is_under_the_public_address_and_the_code_is_the_only_number_of_its_length(
    public_url: str, begins: str | None
) -> None:
    letter = written(Letters(sender="a@b.test", public_url=public_url, service="b"))
    if begins is not None:
        assert f"\n{begins}{LINK}\n" in letter.text
        assert urlsplit(begins).port == urlsplit(public_url).port
    assert (LINK in letter.text) == (LINK in letter.html) == (begins is not None)
    for where in (letter.text, letter.html, "".join(Visible(letter.html).words)):
        assert re.findall(r"(?<!\d)\d{4}(?!\d)", where) == ["0471"]
        found = re.search(r"\d{4}", where)
        assert found is not None
        assert found[0] == "0471"
        assert [line.strip() for line in where.splitlines() if line.strip().isdigit()] == ["0471"]


@pytest.mark.parametrize(
    ("locale", "said"),
    [
        ("en", "Or open this link and enter your password there; it works for 2 hours, once:"),
        (
            "de",
            "Oder öffnen Sie diesen Link und geben Sie dort Ihr Passwort ein; er gilt 2 Stunden lang",
        ),
    ],
)
def test_a_link_says_how_long_it_works(locale: str, said: str) -> None:
    letter = written(locale=locale, seconds=60, link_seconds=7_200)
    assert said in " ".join(letter.text.split())
    assert said in letter.html


def test_without_a_link_nothing_is_said_of_one() -> None:
    letter = written(HOME, link=None)
    assert "Or open" not in letter.text
    assert Visible(letter.html).links == ["https://service.test"]


# ------------------------------------------------------------------------------------------------------- notices


@pytest.mark.parametrize("letter", NOTICES)
@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_notice_says_when_and_carries_no_secret(letter: Letter, locale: str) -> None:
    notice = written(letter=letter, locale=locale, data={"device": "curl", "to": "kim@example.test"})
    _, text, html = parts(notice)
    for where in (text, "".join(Visible(html).words)):
        assert "2026-11-20 11:05 UTC" in where
        assert "kim@example.test" not in where
        assert ("curl" in where) is (letter is Letter.NEW_DEVICE)
    assert 'class="code"' not in html
    assert 'class="token"' not in html


@pytest.mark.parametrize(("user_agent", "named"), BROWSERS.items())
def test_a_device_is_named_as_it_is_listed(user_agent: str, named: str) -> None:
    assert session.device(user_agent) == named
    letter = written(letter=Letter.NEW_DEVICE, data={"device": named})
    assert f"\nDevice: {named}\n" in letter.text
    assert named in "".join(Visible(letter.html).words)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("Firefox on Windows", "Gerät: Firefox unter Windows"),
        ("a browser on Linux", "Gerät: ein Browser unter Linux"),
        ("a browser", "Gerät: ein Browser"),
        ("curl", "Gerät: curl"),
        ("unknown", "Gerät: eines, das nicht sagt, was es ist"),
    ],
)
def test_a_device_is_named_in_the_readers_language(device: str, said: str) -> None:
    assert f"\n{said}\n" in written(letter=Letter.NEW_DEVICE, locale="de", data={"device": device}).text


@pytest.mark.parametrize(
    "device",
    ["win.example.com", "Call-0800-123456", "a" * 65, "<b>", "a\r\nb", "", "ｗｉｎ．example", None, "unknown"],
)
def test_a_device_that_could_lead_somewhere_has_no_name(device: str | None) -> None:
    data = {} if device is None else {"device": device}
    letter = written(letter=Letter.NEW_DEVICE, data=data)
    assert "\nDevice: one that does not say what it is\n" in letter.text
    assert not device or device not in letter.text


@given(st.text(max_size=200))
def test_no_client_writes_a_link_or_a_number_into_a_notice(user_agent: str) -> None:
    letter = written(letter=Letter.NEW_DEVICE, data={"device": session.device(user_agent)})
    [line] = [line for line in letter.text.splitlines() if line.startswith("Device: ")]
    assert re.fullmatch(r"Device: [A-Za-z -]+", line)


@pytest.mark.parametrize("letter", NOTICES)
def test_a_name_with_a_number_may_stand_where_no_code_does(letter: Letter) -> None:
    assert written(letter=letter, username="kim2026").text.startswith("Hello kim2026,\n")
    assert written(letter=letter, username="win.example.com").text.startswith("Hello,\n")


# --------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("letter", Letter)
@pytest.mark.parametrize("locale", LANGUAGES)
def test_every_letter_is_whole_in_every_language(letter: Letter, locale: str) -> None:
    notice = written(letter=letter, locale=locale, username="kim", data={"device": "curl"})
    message, text, html = parts(notice)
    assert message["Content-Language"] == locale
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert "regsvc" in notice.subject
    assert not re.search(r"\d", notice.subject)
    assert "0471" not in notice.subject
    for where in (text, html):
        assert "kim" in where
        assert "None" not in where
        assert not re.search(r"[{}%]", where), "a template is filled to the last"
    assert not re.search(r"\n\n\n", text), "one blank line between two paragraphs"
    assert max(len(line) for line in text.splitlines() if "://" not in line) <= 78  # RFC 5322 2.1.1
    assert notice.raw.isascii()


def test_every_letter_has_its_own_subject_in_every_language() -> None:
    subjects = {
        (locale, letter): written(letter=letter, locale=locale).subject for letter in Letter for locale in LANGUAGES
    }
    assert len(set(subjects.values())) == len(subjects)


def test_no_letter_has_words_that_nobody_reads() -> None:
    needed = {"subject", "lead", "stranger"}
    for letter in Letter:
        said = tomllib.loads((WORDS / "en.toml").read_text("utf-8"))[letter.value]
        more = set() if letter.notice else {"life"}
        more |= {"action"} if letter in RESETS else set()
        more |= {"bare"} if letter is Letter.RESET else set()
        more |= {"beside", "following"} if letter is Letter.ACTIVATION else set()
        assert said.keys() == needed | more


@pytest.mark.parametrize("letter", [letter for letter in Letter if not letter.notice])
def test_no_letter_says_of_what_it_carries_that_it_lives_for_years(letter: Letter) -> None:
    with pytest.raises(ValueError, match="no code lives for"):
        written(letter=letter, seconds=timedelta(days=1000).total_seconds())
