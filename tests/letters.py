"""Letters in the mailbox of a running service, read as the people they are for would read them."""

import re
import ssl
import time
from email import message_from_string
from email.policy import default
from typing import Final

import httpx

from tests.waiting import LOOK_EVERY

SECONDS: Final = 15.0  # how long a letter is waited for
_PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would load every authority there is, each time
LINK: Final = re.compile(r"(?m)^https?://\S+/activate#([\w-]{43})\s*$")  # its token
CODE: Final = re.compile(r"(?m)^\s*(\d{4,10})\s*$")  # alone on its line


def texts(url: str, to: str) -> list[str]:
    """Return the text parts of the letters to an address, newest first."""
    return read(httpx.get(f"{url}/api/v2/search", params={"kind": "to", "query": to}, timeout=20, verify=_PLAIN))


def read(found: httpx.Response) -> list[str]:
    """Return the text parts of the letters that a search of the mailbox found, as their readers see them."""
    parts = (
        message_from_string(item["Raw"]["Data"], policy=default).get_body(("plain",)) for item in found.json()["items"]
    )
    return [part.get_content() for part in parts if part is not None]


def wait_letter(url: str, to: str, *, having: re.Pattern[str], number: int = 1) -> str:
    """Wait until `number` letters to an address have what `having` finds; return its first group in the newest."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        found = [match[1] for text in texts(url, to) if (match := having.search(text))]
        if len(found) >= number:
            return found[0]
        time.sleep(LOOK_EVERY)
    raise AssertionError(f"no {number} such letters came to {to} within {SECONDS:g} s")


def code_for(url: str, to: str, *, number: int = 1) -> str:
    """Wait for the `number`th letter with a code to an address; return its code."""
    return wait_letter(url, to, having=CODE, number=number)
