"""The two layouts of the letters, text and HTML, and what is left of them once all is filled in that stays as it is.

A template engine takes a third of a millisecond for a letter, most of it to wrap the same sentences anew; that is a
quarter of what a mail costs. So the layouts are rendered once for each kind of letter, with marks where a mail's own
words go, and a mail is written by joining pieces. No word of a mail is kept, for it may be a secret.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import css_inline
import jinja2

_TEMPLATES: Final = Path(__file__).with_name("templates")
_MARK: Final = re.compile("\0(\\w+)\0")  # NUL is in no text that stands in a letter, and no layout changes it


def mark(name: str) -> str:
    """Return what stands in a layout for the mail's own words of that name, on which no wrapping may be done."""
    return f"\0{name}\0"


@dataclass(frozen=True, slots=True)
class Form:
    """Both layouts, filled but for a mail's own words: pieces of text, at each odd place the name of such words."""

    text: tuple[str, ...]
    html: tuple[str, ...]

    def fill(self, own: Mapping[str, str]) -> tuple[str, str]:
        """Return text and HTML with a mail's own words in them."""
        return _join(self.text, own), _join(self.html, {name: escape(words) for name, words in own.items()})


class Layouts:
    """The layouts, compiled; the style sheet is moved into the elements here, not in each mail."""

    def __init__(self) -> None:
        knobs = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "keep_trailing_newline": True}
        text = jinja2.Environment(autoescape=False, **knobs)  # type: ignore[arg-type]  # noqa: S701 - it is plain text
        html = jinja2.Environment(autoescape=True, **knobs)  # type: ignore[arg-type]  # a dict has one type of value
        inlined = css_inline.inline((_TEMPLATES / "letter.html").read_text("utf-8"), load_remote_stylesheets=False)
        self._text = text.from_string((_TEMPLATES / "letter.txt").read_text("utf-8"))
        self._html = html.from_string(f"{inlined}\n")

    def form(self, said: Mapping[str, object]) -> Form:
        """Fill in what stays as it is; `said` has marks for the rest."""
        return Form(_pieces(self._text.render(said)), _pieces(self._html.render(said)))


def _pieces(rendered: str) -> tuple[str, ...]:
    return tuple(_MARK.split(rendered))


def _join(pieces: Sequence[str], own: Mapping[str, str]) -> str:
    return "".join([own[piece] if at % 2 else piece for at, piece in enumerate(pieces)])
