"""Make `regsvc/adapters/crypto/common_passwords.txt` from zxcvbn's list: `pip install zxcvbn==4.5.0`, then run this.

Kept are the entries that would pass the length rule (8 characters or more), in the form they are compared in; the
shorter ones are refused for their length. Blank lines: the first ends what the file says about itself.
"""

import unicodedata
from importlib.metadata import distribution
from pathlib import Path

from zxcvbn.frequency_lists import FREQUENCY_LISTS

SHORTEST = 8
TARGET = Path(__file__).parent.parent / "regsvc" / "adapters" / "crypto" / "common_passwords.txt"
ABOUT = """\
Passwords that everybody tries first, most common first: one a line, NFKC and casefolded, 8 characters or more.
Made by docs/make_common_passwords.py from the list "passwords" of {name} {version} (Python Package Index), a port of
zxcvbn by Dropbox, Inc. (Copyright (c) 2012-2016 Dan Wheeler and Dropbox, Inc.), under the licence of both:
"""


def main() -> None:
    """Write the file."""
    source = distribution("zxcvbn")
    licence = next(file for file in source.files or () if file.name.startswith("LICENSE")).read_text()
    words = (unicodedata.normalize("NFKC", word).casefold() for word in FREQUENCY_LISTS["passwords"])
    kept = dict.fromkeys(word for word in words if len(word) >= SHORTEST)
    about = ABOUT.format(name=source.name, version=source.version) + licence
    lines = [f"# {line}".rstrip() for line in about.splitlines()]
    TARGET.write_text("\n".join([*lines, "", *kept, ""]), "utf-8")


if __name__ == "__main__":
    main()
