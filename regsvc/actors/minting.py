"""What a letter carries, made at the last moment before it leaves."""

import re
from dataclasses import replace
from typing import Final
from uuid import UUID

from regsvc import observe
from regsvc.actors.tally import Carried, Pace
from regsvc.domain.delivery import LINK, Letter, Parcel
from regsvc.domain.values import LinkToken, Secret
from regsvc.ports import Crypto, Dispatch, Imprint, Mailbag, Minted

_NUMBER: Final = re.compile(r"\d{4}", re.ASCII)  # as long as the shortest code


def facts(parcel: Parcel) -> dict[str, object]:
    """Return what every line about a mail says."""
    return {
        "mail_id": str(parcel.id),
        "subject_id": str(parcel.subject),
        "letter": parcel.letter.value,
        "attempts": parcel.attempts,
    }


async def dispatch(parcel: Parcel, mailbag: Mailbag, crypto: Crypto, pace: Pace) -> Dispatch | None:
    """Mint what the letter carries, if anything, and find out whom it is for; None: nobody."""
    carried, purpose = pace.carried(parcel.letter), parcel.letter.purpose
    code: Secret | None = None
    link: Secret | None = None
    if carried is None or purpose is None:
        minted = await mailbag.address(parcel)
    else:
        minted, code, link = await _mint(parcel, purpose, carried, mailbag, crypto)
    if minted is None:
        return None
    bare = Dispatch(
        parcel.id,
        parcel.letter,
        minted.email,
        minted.username,
        minted.locale,
        None,
        None,
        parcel.created_at,
        trace=observe.trace(),
        data=parcel.data,
    )
    if minted.owned:  # what was minted opens nothing there
        return replace(bare, letter=Letter.REGISTERED_AGAIN)
    if carried is None:
        return bare
    return replace(bare, code=code, lifetime=carried.lifetime, link=link, link_lifetime=carried.link)


async def _mint(
    parcel: Parcel, purpose: str, carried: Carried, mailbag: Mailbag, crypto: Crypto
) -> tuple[Minted | None, Secret, Secret | None]:
    """Make the secrets of a letter and have their MACs stored; return whom it is for, and what stands in it."""
    subject = parcel.subject
    proof, code = _secret(subject, crypto, carried.digits)
    link: Secret | None = None
    beside: Imprint | None = None
    if carried.link is not None:
        token = _token(subject, crypto)
        link, beside = token.text(), Imprint(crypto.mac(subject, LINK, token.secret), carried.link)
    minted = await mailbag.mint(parcel, crypto.mac(subject, purpose, proof), carried.lifetime, beside)
    if minted is not None:
        observe.emit("code_minted", **facts(parcel))
    return minted, code, link


def _secret(subject: UUID, crypto: Crypto, digits: int | None) -> tuple[Secret, Secret]:
    """Return a new secret: what is proved with it, and what stands in the letter."""
    if digits is not None:
        code = crypto.new_code(digits)
        return code, code
    token = _token(subject, crypto)
    return token.secret, token.text()


def _token(subject: UUID, crypto: Crypto) -> LinkToken:
    """Return a new token whose text has no number that somebody, or some program, could take for the code beside it.

    One in fifty has; leaving those out costs a thirtieth of a bit.
    """
    while True:
        token = LinkToken(subject, crypto.new_token())
        if not _NUMBER.search(token.text().reveal()):
            return token
