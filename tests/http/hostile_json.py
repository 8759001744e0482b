"""Hostile JSON: what is no JSON, what parsers disagree on, and what is well-formed and not to be borne.

`bodies(form, seed)` never ends and is the same for the same seed. A form is a good body; each of its fields is replaced
by anything, taken away, or said twice, and the bytes of all that are damaged now and then.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final

BODY_MAX: Final = 16 * 1024

MALFORMED: Final = {
    "nothing": b"",
    "blank": b"  ",
    "not json": b"email=alice",
    "two values": b"{} {}",
    "trailing comma": b'{"email":"a",}',
    "single quotes": b"{'email':'a'}",
    "comment": b'{} // "',
    "not utf-8": b'{"email":"\xff"}',
    "utf-16": '{"email":"a"}'.encode("utf-16"),
    "utf-16 without a mark": '{"email":"a"}'.encode("utf-16-le"),
    "utf-32": '{"email":"a"}'.encode("utf-32"),
    "overlong utf-8": b'{"email":"\xc0\x80"}',
    "encoded surrogate": b'{"email":"\xed\xa0\x80"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "array": b"[]",
    "string": b'"email"',
    "number": b"1",
    "null": b"null",
    "nan": b'{"email":NaN}',
    "infinity": b'{"email":[-Infinity]}',
    "raw nul": b'{"email":"a\x00"}',
    "escaped nul": b'{"email":"a\\u0000"}',
    "nul in a key": b'{"\\u0000":1}',
    "nul in an array": b'{"email":["\\u0000"]}',
    "lone surrogate": b'{"email":"\\ud800"}',
    "lone low surrogate": b'{"email":"\\udc00\\ud800"}',
    "same key twice": b'{"email":"a","email":"b"}',
    "same key twice inside": b'{"a":{"b":1,"b":2}}',
    "same key, escaped": b'{"email":"a","\\u0065mail":"b"}',
    "33 levels": b'{"a":' * 33 + b"1" + b"}" * 33,
    "33 levels of arrays": b'{"a":' + b"[" * 32 + b"]" * 32 + b"}",
    "8,000 levels": b"[" * 8000 + b"]" * 8000,
    "8,000 levels, unclosed": b'{"a":' + b"[" * 8000,
    "deep behind a string with a quote": b'{"a\\"":' + b"[" * 40 + b"]" * 40 + b"}",
    "deep behind an unclosed string": b"[" * 40 + b'"',
    "a number of 5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "a raw line break": b'{"a":"\n"}',
    "a raw tab": b'{"a":"\t"}',
    "an escape that is none": b'{"a":"\\x41"}',
    "half an escape": b'{"a":"\\u00"}',
    "a plus sign": b'{"a":+1}',
    "a leading zero": b'{"a":01}',
    "hexadecimal": b'{"a":0x10}',
    "no digit before the point": b'{"a":.5}',
    "no digit behind the point": b'{"a":5.}',
    "Python": b"{'a':None}",
    "words in capitals": b'{"a":True}',
    "a no-break space": b'{\xc2\xa0"a":1}',
    "a form feed": b'{\x0c"a":1}',
}
"""What is not strict JSON, by what is wrong with it."""

TEXTS: Final = (
    "", " ", "a", "null", "\0", "\x01", "\x1b[31m", "\x7f", "\r\nBcc: x@example.test", "%0d%0a", "\u2028", "\u202e",
    "\ufeff", "\ufffe", "\U0010ffff", "\u0130", "ß", "ﬀ", "e\u0301" * 60, "\u200b", "０４２８", "٠١٢٣", "0428",
    "000000", "-0", "1e400", "'; DROP TABLE accounts; --", "{{7*7}}", "${jndi:ldap://x}", "%s%n", "{0.__class__}",
    "../../etc", "<script>alert(1)</script>", "a@b", "@", "a@", "@b", "a@b@c", '"a b"@c.d', "a@[127.0.0.1]", "a@b..c",
    "a@-b.c", "ü@bücher.example", "a@xn--a", "x" * 64 + "@example.test", "a@" + "b." * 120 + "c",
    "a@" + "b" * 64 + ".c", "nobody@example.test", "correct horse battery staple", "password", "admin", "root",
    "a_b.c-d", "en", "de-AT-1901", "x" * 43, "-" * 43, "A" * 1025, "y" * 9000, "😀" * 33, "true", "__proto__",
    "constructor",
)  # fmt: skip
NUMBERS: Final = (
    "0", "-0", "-0.0", "1", "428", "042", "1.5", "1e2", "1E+2", "1e-400", "1e400", "-1e400", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "9" * 400, "9" * 4300,
    "9" * 4301, "0." + "3" * 3000, "1e999999999", "NaN", "Infinity", "-Infinity", "0x1F", "01", "+1", ".5", "5.", "1_0",
)  # fmt: skip
WORDS: Final = ("true", "false", "null", "True", "None", "undefined", "nan", "[]", "{}", "[[]]", '[""]', "[null]")
KEYS: Final = (
    "__proto__", "constructor", "prototype", "__class__", "", " ", "0", "$ne", "$where", "email ", "Email", "EMAIL",
    "email\\u0000", "\\u0065mail", "\\ud800", "is_admin", "role", "disabled", "is_activated", "id", "password_hash",
    "__init__", "self", "cls", "model_fields_set", "a.b", "a[b]", "\\n", "x" * 300,
)  # fmt: skip

Raw = str  # JSON text, or what somebody takes for it


def bodies(form: Mapping[str, object], seed: int) -> Iterator[bytes]:
    """Yield bodies for a route that takes `form`: what is never JSON first, then anything, for ever."""
    dice = random.Random(seed)
    yield from dice.sample(list(MALFORMED.values()), 3)
    while True:
        text = dice.choice(_WAYS)(form, dice)
        body = text.encode("utf-8", "surrogatepass")
        yield body if dice.random() < 0.9 else dice.choice(_DAMAGES)(body, dice)


def anything(dice: random.Random, room: int = 3) -> Raw:
    """Return a value: mostly of one line, now and then with others in it, up to `room` levels of them."""
    return dice.choice(_VALUES if room else _VALUES[:-2])(dice, room)


def _deep(dice: random.Random, _room: int) -> Raw:
    depth = dice.choice((1, 2, 30, 31, 32, 33, 500))
    opened, closed = dice.choice((("[", "]"), ('{"a":', "}")))
    return opened * depth + "1" + closed * depth


def _array(dice: random.Random, room: int) -> Raw:
    return "[" + ",".join(anything(dice, room - 1) for _ in range(dice.randrange(5))) + "]"


def _object(dice: random.Random, room: int) -> Raw:
    return "{" + ",".join(f"{_key(dice)}:{anything(dice, room - 1)}" for _ in range(dice.randrange(5))) + "}"


def _string(dice: random.Random, _room: int = 0) -> Raw:
    if dice.random() < 0.2:
        text = "".join(chr(dice.choice((dice.randrange(0x80), dice.randrange(0x11_0000)))) for _ in range(12))
    else:
        text = dice.choice(TEXTS) + dice.choice(("", "", "", "", "", "", "", "\ud800", "a", dice.choice(TEXTS)))
    return json.dumps(text, ensure_ascii=dice.random() < 0.5)


def _number(dice: random.Random, _room: int) -> Raw:
    return dice.choice(NUMBERS)


def _word(dice: random.Random, _room: int) -> Raw:
    return dice.choice(WORDS)


_VALUES: Final[tuple[Callable[[random.Random, int], Raw], ...]] = (
    _string, _string, _string, _string, _string, _string, _string, _string, _number, _word, _deep, _array, _object,
)  # fmt: skip


def _key(dice: random.Random) -> Raw:
    return f'"{dice.choice(KEYS)}"' if dice.random() < 0.7 else _string(dice)


def _written(pairs: list[tuple[Raw, Raw]], dice: random.Random) -> Raw:
    blank = dice.choice(("", " ", "\n", "\t"))
    return "{" + f",{blank}".join(f"{name}:{blank}{value}" for name, value in pairs) + "}"


def _pairs(form: Mapping[str, object]) -> list[tuple[Raw, Raw]]:
    return [(json.dumps(name), json.dumps(value)) for name, value in form.items()]


def _replace(form: Mapping[str, object], dice: random.Random) -> Raw:
    """One field, or each, is anything; the others are good."""
    pairs = _pairs(form)
    lucky = dice.randrange(len(pairs)) if pairs and dice.random() < 0.8 else None
    return _written([(k, v if lucky not in {None, n} else anything(dice)) for n, (k, v) in enumerate(pairs)], dice)


def _remove(form: Mapping[str, object], dice: random.Random) -> Raw:
    pairs = _pairs(form)
    return _written(dice.sample(pairs, dice.randrange(len(pairs) + 1)), dice)


def _add(form: Mapping[str, object], dice: random.Random) -> Raw:
    """Unknown fields, known ones twice, and in any order."""
    more = [(_key(dice), anything(dice)) for _ in range(dice.choice((1, 1, 2, 30)))]
    again = dice.sample(_pairs(form), 1) if form and dice.random() < 0.3 else []
    pairs = [*_pairs(form), *more, *again]
    dice.shuffle(pairs)
    return _written(pairs, dice)


def _other(_form: Mapping[str, object], dice: random.Random) -> Raw:
    return anything(dice, 5)


def _large(form: Mapping[str, object], dice: random.Random) -> Raw:
    """About as much as a body may have, or more than any may."""
    text = _written(_pairs(form), dice)
    room = dice.choice((BODY_MAX - 1, BODY_MAX, BODY_MAX + 1, 4 * BODY_MAX)) - len(text.encode())
    return text + dice.choice((" ", "\n", "x")) * room


_WAYS: Final[tuple[Callable[[Mapping[str, object], random.Random], Raw], ...]] = (
    _replace, _replace, _replace, _replace, _replace, _replace, _remove, _add, _add, _other, _large,
)  # fmt: skip


def _truncate(body: bytes, dice: random.Random) -> bytes:
    return body[: dice.randrange(len(body) + 1)]


def _flip(body: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(body) + 1)
    return body[:at] + bytes(byte ^ (1 << dice.randrange(8)) for byte in body[at : at + 3]) + body[at + 3 :]


def _insert(body: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(body) + 1)
    return body[:at] + dice.choice((b"\0", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b'"', b"\\", b"{", b",")) + body[at:]


def _recode(body: bytes, dice: random.Random) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(dice.choice(("utf-16", "utf-16-be", "utf-32", "utf-7", "utf-8-sig", "cp500")), "replace")


_DAMAGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (_truncate, _flip, _insert, _recode)
