"""What letters of a kind have in common is made once, and keeps nothing of any mail."""

from html import unescape

import pytest

from regsvc.adapters.mail import Letters
from regsvc.adapters.mail import letters as room
from regsvc.adapters.mail.layouts import Form, Layouts, mark
from regsvc.adapters.mail.letters import Written
from regsvc.domain.delivery import Letter
from regsvc.ports import Dispatch
from tests.adapters.writing import dispatch

FILLED = {
    "language": "en",
    "subject": "A subject",
    "greeting": mark("greeting"),
    "lead": "All of it is wrapped where it is longer than a line of seventy-two characters, as this one is.",
    "facts": [mark("fact0"), mark("fact1")],
    "way": "https://example.test/reset-password",
    "action": None,
    "bare": None,
    "code": mark("code"),
    "life": "It lives a minute.",
    "beside": "Or follow this link:",
    "follow": mark("follow"),
    "following": "Follow it",
    "stranger": "You did not ask for it?",
    "footer": "A machine wrote this.",
    "link": "https://example.test/",
}
OWN = {"greeting": 'Hello <b>Kim</b> & "co" \'n,', "fact0": "One.", "fact1": "Two & a half.", "code": "483920"}
OWN |= {"follow": "https://example.test/activate#AbC-_x"}


@pytest.fixture
def fresh() -> Letters:
    """Letters that have not been asked for one."""
    return Letters(sender="no-reply@service.test", public_url="https://service.test", service="regsvc")


def written(letters: Letters, asked: Dispatch) -> Written:
    letter = letters.write(asked)
    assert isinstance(letter, Written)
    return letter


def test_a_form_that_is_filled_is_the_layout_filled_at_once() -> None:
    layouts = Layouts()
    text, html = layouts.form(FILLED).fill(OWN)
    at_once = FILLED | OWN | {"facts": [OWN["fact0"], OWN["fact1"]]}
    whole = layouts.form(at_once)
    assert text == whole.text[0]
    assert unescape(html) == unescape(whole.html[0])
    assert "<b>" not in html
    assert '"co"' not in html


def test_words_are_put_where_they_were_marked_and_nowhere_else() -> None:
    form = Form(("a ", "one", " b ", "two", ""), ("<", "two", ">"))
    assert form.fill({"one": "two", "two": "\0one\0"}) == ("a two b \0one\0", "<\0one\0>")


def test_what_is_kept_for_the_next_letter_has_no_word_of_this_one(fresh: Letters) -> None:
    link = "AbCdefghijklmnopqrstuv"
    written(fresh, dispatch(code="483920", username="kim-the-first", link=link))
    written(fresh, dispatch(letter=Letter.RESET, code="ZyXwvutsrqponmlkjihgfe", username="kim-the-first"))
    kept = repr(fresh._forms)
    assert "The code works for 1 minute" in kept
    for words in ("483920", link, "ZyXwvuts", "kim-the-first", dispatch().to):
        assert words not in kept


def test_letters_of_a_kind_share_a_form_and_others_do_not(fresh: Letters) -> None:
    first = written(fresh, dispatch(code="111111"))
    assert written(fresh, dispatch(code="222222")).text == first.text.replace("111111", "222222")
    assert len(fresh._forms) == 1
    assert "7 minutes" in written(fresh, dispatch(code="222222", seconds=420)).text
    assert "22222222" in written(fresh, dispatch(code="22222222")).text
    assert "Konto" in written(fresh, dispatch(code="222222", locale="de")).text
    assert len(fresh._forms) == 4


def test_forms_do_not_grow_without_end(fresh: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KINDS_MAX", 3)
    for minutes in range(2, 12):
        assert f"{minutes} minutes" in written(fresh, dispatch(seconds=60 * minutes, link=None)).text
        assert len(fresh._forms) <= 3
