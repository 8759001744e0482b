"""Write `pi.h`: the tables that Blowfish starts from, which are the first 33,344 bits of the fraction of π.

B. Schneier, "Description of a New Variable-Length Key, 64-Bit Block Cipher (Blowfish)", 1993: the P-array, then the
four S-boxes, filled in order with the hexadecimal digits of π. Computed here, so that nobody has to believe a table.

    python -m regsvc.bcrypt_lanes.make_tables > regsvc/bcrypt_lanes/pi.h
"""

from collections.abc import Iterator

P = 18  # words
S = 4 * 256  # words
GUARD = 64  # bits that the rounding of the series may spoil


def pi_fraction(bits: int) -> int:
    """Return the first so many bits of π - 3, by Machin's formula: π = 16 arctan 1/5 - 4 arctan 1/239."""
    one = 1 << (bits + GUARD)
    return ((16 * _arctan_inverse(5, one) - 4 * _arctan_inverse(239, one)) >> GUARD) & ((1 << bits) - 1)


def _arctan_inverse(x: int, one: int) -> int:
    """Return arctan(1/x) · `one`, by Gregory's series."""
    power = total = one // x
    divisor, sign = 1, 1
    while power := power // (x * x):
        divisor, sign = divisor + 2, -sign
        total += sign * (power // divisor)
    return total


def words() -> list[int]:
    """Return the tables, P before S, 32 bits each."""
    count = P + S
    digits = pi_fraction(32 * count).to_bytes(4 * count, "big")
    return [int.from_bytes(digits[at : at + 4], "big") for at in range(0, 4 * count, 4)]


def header() -> str:
    """Return the tables as a header of C."""
    return "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield "/* Written by make_tables.py: the fraction of pi, 32 bits a word. */"
    yield f"static const uint32_t PI[{P + S}] = {{"
    table = words()
    for at in range(0, len(table), 8):
        yield "    " + ", ".join(f"0x{word:08x}" for word in table[at : at + 8]) + ","
    yield "};"


if __name__ == "__main__":
    print(header(), end="")  # noqa: T201 - what it is for
