import pickle
import string
from uuid import UUID

import email_validator
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regsvc.domain import values
from regsvc.domain.values import (
    EMAIL_MAX,
    Email,
    Flaw,
    LinkToken,
    Locale,
    PasswordRules,
    Secret,
    Username,
    read_code,
)


@pytest.mark.parametrize(
    ("typed", "address", "key"),
    [
        ("a@b.co", "a@b.co", "a@b.co"),
        ("  A.b+Tag@B.CO\t", "A.b+Tag@B.CO", "a.b+tag@b.co"),  # dots and tags stay distinct
        ("user@example.com.", "user@example.com", "user@example.com"),
        ("Ünï@exämple.de", "Ünï@exämple.de", "ünï@xn--exmple-cua.de"),
        ("a@xn--exmple-cua.de", "a@xn--exmple-cua.de", "a@xn--exmple-cua.de"),
        ("ſ@x.org", "ſ@x.org", "s@x.org"),  # the long s folds to the short one
        ("ﬁ@x.org", "ﬁ@x.org", "fi@x.org"),  # NFKC opens the ligature
        ("Straße@faß.de", "Straße@faß.de", "strasse@xn--fa-hia.de"),  # UTS 46 non-transitional keeps ß in domains
        ("a@ｅxample。org", "a@ｅxample。org", "a@example.org"),
        ("İ@x.org", "İ@x.org", "i\u0307@x.org"),  # Python and PostgreSQL disagree here; only Python is asked
        ("ΑΣ@x.org", "ΑΣ@x.org", "ασ@x.org"),
        ("load@example.test", "load@example.test", "load@example.test"),
    ],
)
def test_an_address_has_one_key(typed: str, address: str, key: str) -> None:
    assert Email.parse(typed) == Email(address, key)  # type: ignore[arg-type]  # a key written out


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "a",
        "@x.org",
        "a@",
        "a@x",
        "a@localhost",
        "a..b@x.org",
        '"a b"@x.org',
        "a@[127.0.0.1]",
        "a@1.2.3.4",
        "a@exa mple.org",
        "a@x.org\r\nBcc: b@y.org",
        "a\x00@x.org",
        "a\ud800@x.org",
        "\u200ba@x.org",
        "a@-x.org",
        "a@xn--\u00fc.org",
        "a" * 65 + "@x.org",
        "a@b.org, c@d.org",
    ],
)
def test_what_is_no_address_is_refused_with_a_sentence(typed: str) -> None:
    flaw = Email.parse(typed)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "invalid_email"
    assert flaw.message.endswith(".")
    assert flaw.message.isprintable()


def test_a_long_address_is_refused_by_its_octets() -> None:
    local = "ü" * 32
    assert isinstance(Email.parse(f"{local}@x.org"), Email)
    flaw = Email.parse(f"{local}@{'.'.join(['b' * 60] * 4)}.org")
    assert isinstance(flaw, Flaw)
    assert flaw.code == "too_long"
    assert str(EMAIL_MAX) in flaw.message


def test_a_key_that_is_no_address_any_more_is_refused() -> None:
    # U+0149 folds into two letters: 32 of them still make a local part of 64, 33 do not, though 33 were typed.
    assert isinstance(Email.parse("\u0149" * 32 + "@x.org"), Email)
    assert isinstance(Email.parse("\u0149" * 33 + "@x.org"), Flaw)


@given(st.text(max_size=40), st.text(string.ascii_letters + "üßİſ.-", min_size=1, max_size=20))
def test_reading_an_address_never_fails_and_its_key_is_its_own_key(local: str, domain: str) -> None:
    email = Email.parse(f"{local}@{domain}.org")
    if isinstance(email, Email):
        again = Email.parse(email.key)
        assert isinstance(again, Email)
        assert again.key == email.key
        assert email.address.strip() == email.address


_ATOMS = st.text("aZ09!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=30)
_LABELS = st.text("aZ09-", min_size=1, max_size=65) | st.sampled_from(["a", "xn--p1ai", "ab--c", "a-b", "b" * 63])
_TOPS = ["com", "ORG", "test", "x-y", "c0m", "co1", "-", "a", *email_validator.SPECIAL_USE_DOMAIN_NAMES, "xn--p1ai"]
_LIKELY = st.builds(
    "{}@{}.{}".format,
    st.lists(_ATOMS, min_size=1, max_size=3).map(".".join),
    st.lists(_LABELS, min_size=1, max_size=4).map(".".join),
    st.sampled_from(_TOPS),
)


@given(_LIKELY | st.text("aZ0.-@+\n é", max_size=12))
@example("a@localhost.com")
@example("a@b.LocalHost")
@example("INFO@x.org")  # a name that RFC 2142 folds
@example("a@b.com\n")
@example("a@xn--p1ai.com")
@example("a" * 64 + "@x.org")
@example("a" * 65 + "@x.org")
@example("a@" + "b" * 63 + ".org")
@example("a@" + "b" * 64 + ".org")
@example("a@" + "b." * 124 + "org")
def test_the_short_way_takes_nothing_that_the_long_way_does_not_and_gives_the_same_key(text: str) -> None:
    address = text.strip()[:EMAIL_MAX].removesuffix(".")
    key = values._plain(address)
    if key is not None:
        assert values._read_any(address) == Email(address, key)


@pytest.mark.parametrize("address", ["a@b.co", "A.b+Tag@B-c.CO", "o'hara_1@mail.example.test", "x@1.2.org"])
def test_what_people_have_goes_the_short_way(address: str) -> None:
    assert values._plain(address) == address.lower()


@pytest.mark.parametrize("address", ["ü@b.co", "a@ü.org", "a@xn--p1ai.org", "a@b.local", "a@b.c0", '"a"@b.co', "a@b"])
def test_what_needs_a_library_goes_the_long_way(address: str) -> None:
    assert values._plain(address) is None


@pytest.mark.parametrize(("typed", "key"), [("Ada_L.", "ada_l."), (" bob-1 ", "bob-1"), ("ＡＤＡ", "ada")])
def test_a_username_has_one_key(typed: str, key: str) -> None:
    username = Username.parse(typed)
    assert isinstance(username, Username)
    assert username.key == key
    assert username.name == typed.strip()


@pytest.mark.parametrize("typed", ["", "ab", "a" * 33, "with space", "ünï", "a\x00b", "a@b.co"])
def test_what_is_no_username_is_refused(typed: str) -> None:
    flaw = Username.parse(typed)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "invalid_username"


@pytest.mark.parametrize("typed", ["en", "de-AT", "zh-Hant-TW", " fr "])
def test_a_locale_is_a_language_tag(typed: str) -> None:
    assert Locale.parse(typed) == Locale(typed.strip())


@pytest.mark.parametrize("typed", ["", "e", "en_US", "en-", "x" * 40, "de-" + "a-" * 20, "../../etc"])
def test_what_is_no_locale_is_refused(typed: str) -> None:
    flaw = Locale.parse(typed)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "invalid_locale"


RULES = PasswordRules(common=frozenset({"correct horse"}))
EMAIL = Email("Ada.Lovelace@Example.org", "ada.lovelace@example.org")  # type: ignore[arg-type]  # a key written out
NAME = Username("Countess-1", "countess-1")


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("seven77", "too_short"),
        ("\u00e9" * 7, "too_short"),
        ("e\u0301" * 7, "too_short"),  # seven characters after NFKC, fourteen code points before
        ("x" + "y" * 128, "too_long"),
        ("\u0301" * 7, "too_short"),
        ("🔋" * 129 + "!", "too_long"),
        ("\ufdfa" * 8, "too_long"),  # eight characters that NFKC opens to eighteen each
        ("aaaaaaaa", "repeated"),
        ("aAaAａａＡＡ", "repeated"),
        ("        ", "repeated"),
        ("\u0301" * 8, "repeated"),
        ("Correct Horse", "common"),
        ("ＣＯＲＲＥＣＴ ｈｏｒｓｅ", "common"),
        ("ada.lovelace@example.ORG", "context"),
        ("ADA.LOVELACE", "context"),
        ("countess-1", "context"),
        ("Regsvc-2026!", "context"),
        ("  1regsvc1 ", "context"),
        ("ada.lovelace1815", "context"),
        ("Countess!!", "context"),
    ],
)
def test_a_weak_password_is_refused_with_the_reason(password: str, code: str) -> None:
    flaw = RULES.flaw(Secret(password), EMAIL, NAME)
    assert flaw is not None
    assert flaw.code == code
    assert password not in flaw.message


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "correct horse ",  # a blank is a character as any other
        "pässwörter",
        "x" * 127 + "y",
        "        !",
        "🐎🔋📎🐎🔋📎🐎🔋",
        "🔋" * 127 + "!",  # 509 octets
        "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308",  # marks without a letter
        "90817263",
        "regsvc and more",
        "lovelace1",  # a part of a word is not the word
    ],
)
def test_a_password_needs_no_composition(password: str) -> None:
    assert RULES.flaw(Secret(password), EMAIL, NAME) is None
    assert RULES.flaw(Secret(password)) is None


def test_what_is_left_of_a_short_word_is_no_context() -> None:
    ada = Email("ada@x.org", "ada@x.org")  # type: ignore[arg-type]  # a key written out
    assert RULES.flaw(Secret("ada81726354"), ada) is None
    assert RULES.flaw(Secret("12345-90817263"), Email("12345@x.org", "12345@x.org")) is None  # type: ignore[arg-type]


def test_an_address_is_folded_as_a_password_is() -> None:
    typed = Email.parse("Ünïcorns@exämple.de")
    assert isinstance(typed, Email)
    for password in ("u\u0308ni\u0308corns", "ÜNÏCORNS@EXÄMPLE.DE", "ünïcorns@xn--exmple-cua.de", "Ünïcorns99"):
        flaw = RULES.flaw(Secret(password), typed)
        assert flaw is not None
        assert flaw.code == "context"


def test_the_name_of_the_service_is_no_password() -> None:
    flaw = PasswordRules(shortest=6).flaw(Secret("RegSvc"))
    assert flaw is not None
    assert flaw.code == "context"


@pytest.mark.parametrize("typed", ["0042", "00 42", "00-42", " 0042 ", "00\u201142", "００４２", "00\u00a042"])
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert read_code(typed, 4) == Secret("0042")


@pytest.mark.parametrize("typed", ["", "42", "00421", "004a", "-+42", "٠٠٤٢", "0042\x00", "²²²²a"])
def test_what_is_no_code_is_refused(typed: str) -> None:
    flaw = read_code(typed, 4)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "invalid_code"
    assert "4 digits" in flaw.message


def test_a_secret_cannot_be_printed() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {secret:>20} %s" % secret
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError, match="not serialised"):
        pickle.dumps(secret)


def test_secrets_compare_by_their_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("\ud800") == Secret("\ud800")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a")
    assert not Secret("")


@given(st.uuids(), st.binary(min_size=16, max_size=16))
def test_a_token_is_read_back_as_it_was_written(subject: UUID, octets: bytes) -> None:
    token = LinkToken(subject, Secret(octets.hex()))
    text = token.text().reveal()
    assert len(text) == 43
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")
    assert LinkToken.parse(text) == token


@given(st.uuids(), st.binary(min_size=16, max_size=16))
def test_the_random_bits_are_in_each_character_of_a_token(subject: UUID, octets: bytes) -> None:
    turned = bytes(octet ^ 0xFF for octet in octets)
    one, other = (LinkToken(subject, Secret(secret.hex())).text().reveal() for secret in (octets, turned))
    assert all(a != b for a, b in zip(one, other, strict=True))


@given(st.text() | st.text("ABCabc019-_=+/", min_size=40, max_size=46))
def test_what_was_never_a_token_is_none(text: str) -> None:
    token = LinkToken.parse(text)
    assert (token is not None) == (len(text) == 43 and set(text) <= set(string.ascii_letters + string.digits + "-_"))


@pytest.mark.parametrize("text", ["", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "+", "A" * 42 + "\n", "Ä" * 43])
def test_a_token_of_another_shape_is_none(text: str) -> None:
    assert LinkToken.parse(text) is None
