"""What a claim would be mailed at an address that has an account: it goes to the account, which is told so."""

from dataclasses import replace

from regsvc.domain.delivery import Letter
from regsvc.domain.values import Locale, Username
from regsvc.ports import Minted
from regsvc.store import Store
from tests.store.scenes import UNIFORM, email, form, lease_one, look, mint, new_id, register, user


async def test_what_a_claim_would_be_mailed_goes_to_the_account_that_the_address_has(
    store: Store,
) -> None:
    owner = await user(store, "ada", username=Username("Countess", "countess"), locale=Locale("de"))
    claim = replace(form("ada"), id=new_id(), email=email("ADA"), username=Username("evil", "evil"))
    await register(store, claim, UNIFORM)
    parcel = await lease_one(store)
    assert (parcel.letter, parcel.subject) == (Letter.ACTIVATION, claim.id)
    minted = await mint(store, parcel)
    assert minted == Minted(owner.email, "Countess", "de", minted.expires_at, owned=True)
    await store.mailbag.done(parcel)
    state, _ = await look(store, "ada")
    assert state.owner is not None
    assert [(held.id, held.code is not None) for held in state.claims] == [(claim.id, True)]


async def test_a_disabled_one_too_and_an_owner_without_name_and_language_gets_none_of_the_claim_s(
    store: Store,
) -> None:
    owner = await user(store, "ada")
    async with store.begin() as unit:
        locked = await unit.people.lock(owner.id)
        assert locked is not None
        await unit.people.change(locked[0], replace(locked[0], disabled_at=locked[1]))
    claim = replace(form("ada"), id=new_id(), username=Username("evil", "evil"), locale=Locale("de"))
    await register(store, claim, UNIFORM)
    minted = await mint(store, await lease_one(store))
    assert minted == Minted(owner.email, None, None, minted.expires_at, owned=True)
