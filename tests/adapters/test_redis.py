"""Buckets in Redis: whatever befalls the server or a caller, calls fail at once or are right, and it comes back."""

import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import coredis
import pytest
import trio
import trustme

from regsvc.adapters.redis import PREFIX, RedisQuotas, open_redis
from regsvc.domain.quota import HOUR, MINUTE, Level, Limit, Policy, Take
from regsvc.domain.values import Secret
from regsvc.ports import Unavailable
from tests.instruments import HangUp
from tests.redis import Server, running
from tests.waiting import until_asked

POLICY = Policy(Limit.LOGIN, 5, HOUR)
PATIENCE = timedelta(seconds=5)  # a busy machine is not what most of this is about
SHORT = timedelta(seconds=0.1)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


async def take(quotas: RedisQuotas, key: str = "a") -> Level:
    (level,) = await quotas.take([Take(POLICY, key)])
    return level


async def answers(quotas: RedisQuotas) -> bool:
    try:
        await quotas.take([Take(POLICY, uuid4().hex)])
    except Unavailable:
        return False
    return True


@asynccontextmanager
async def looking(server: Server) -> AsyncIterator["coredis.Redis[str]"]:
    async with coredis.Redis.from_url(server.url, decode_responses=True) as raw:
        yield raw


async def test_a_server_that_is_not_there_yet_is_found_when_it_comes(server: Server) -> None:
    server.stop()
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas:
        for _ in range(3):
            with trio.fail_after(10), pytest.raises(Unavailable, match=r"^limits: ConnectionError: Unable") as away:
                await take(quotas)
            assert away.value.what == "limits"
        with pytest.raises(Unavailable, match=r"^limits: "):
            await quotas.give_back([Take(POLICY, "a")])
        server.start()
        await until_asked(lambda: answers(quotas))


async def test_a_server_that_crashes_fails_calls_at_once_and_is_found_again_empty(server: Server) -> None:
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas:
        for _ in range(2):
            for _ in range(5):
                await take(quotas)
            assert not (await take(quotas)).allowed
            server.stop()
            for _ in range(3):
                with trio.fail_after(10), pytest.raises(Unavailable, match=r"^limits: .*onnection"):
                    await take(quotas)
            server.start()
            await until_asked(lambda: answers(quotas))
            assert (await take(quotas)).remaining == 4


async def test_a_server_that_hangs_costs_one_wait_and_nothing_until_it_is_back(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_redis(Secret(server.url), timeout=SHORT) as quotas:
        await until_asked(lambda: answers(quotas))
        server.tell(signal.SIGSTOP)
        began = trio.current_time()
        with pytest.raises(Unavailable, match=r"^limits: TooSlowError"):
            await take(quotas)
        for _ in range(1000):
            with pytest.raises(Unavailable):
                await take(quotas)
        assert trio.current_time() - began < 100 * SHORT.total_seconds()  # and not a thousand and one
        await trio.sleep(0.3)  # it tries to connect to what takes connections, and answers none
        server.tell(signal.SIGCONT)
        await until_asked(lambda: answers(quotas))
    assert [record for record in caplog.records if record.name == "coredis"] == []
    assert logging.getLogger("coredis").level == logging.NOTSET


async def test_a_script_that_the_server_forgot_is_told_again(server: Server) -> None:
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas, looking(server) as raw:
        for remaining in (4, 3):
            await raw.script_flush()
            assert (await take(quotas)).remaining == remaining
        await raw.script_flush()
        await quotas.give_back([Take(POLICY, "a")])
        assert (await take(quotas)).remaining == 3


async def test_what_the_server_refuses_is_an_outage_and_does_not_stay(server: Server) -> None:
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas, looking(server) as raw:
        await raw.rpush(f"{PREFIX}login:bad", ["not a number"])
        with pytest.raises(Unavailable, match=r"^limits: WrongTypeError"):
            await take(quotas, "bad")
        await until_asked(lambda: answers(quotas))


async def test_a_key_outlives_its_debt_by_about_a_second(server: Server) -> None:
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas, looking(server) as raw:
        for times in (1, 2):
            debt = (await take(quotas)).debt / 1000
            assert debt <= await raw.pttl(f"{PREFIX}login:a") <= debt + 1001, times
        await quotas.give_back([Take(POLICY, "a")])
        assert await raw.pttl(f"{PREFIX}login:a") > 0
        assert await raw.keys() == {f"{PREFIX}login:a"}


async def test_a_lost_connection_leaves_nothing_behind(server: Server) -> None:
    async with looking(server) as raw, open_redis(Secret(server.url), timeout=PATIENCE) as quotas:
        for _ in range(20):
            await until_asked(lambda: answers(quotas))
            [mine] = [client for client in await raw.client_list() if client["name"] == "regsvc"]
            await raw.client_kill(identifier=int(mine["id"]))
        await until_asked(lambda: answers(quotas))
        assert [client["name"] for client in await raw.client_list()].count("regsvc") == 1


async def test_callers_that_hang_up_anywhere_leave_the_others_their_answers(server: Server) -> None:
    """One connection carries them all: an answer that nobody waits for must not become the next one's."""
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas, looking(server) as raw:
        for n in range(1, 30):
            with trio.CancelScope() as scope:
                instrument = HangUp(scope, n)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await quotas.take([Take(Policy(Limit.GLOBAL, 1000, MINUTE), f"hung up {n}")])
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert (await take(quotas, f"patient {n}")).debt == POLICY.interval
        assert [client["name"] for client in await raw.client_list()].count("regsvc") == 1


async def test_a_hundred_at_once_get_their_own_answers(server: Server) -> None:
    async with open_redis(Secret(server.url), timeout=PATIENCE) as quotas:

        async def caller(number: int) -> None:
            policy = Policy(Limit.LOGIN, 1 + number, HOUR)
            levels = await quotas.take([Take(policy, f"{number} {n}") for n in range(3)])
            assert levels == [Level(policy, allowed=True, debt=policy.interval)] * 3

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(caller, number, name=f"caller {number}")


async def test_a_password_of_any_characters_opens_and_is_never_told() -> None:
    word = "p@ss/w:rd ü%41"
    with running("--requirepass", word) as server:
        where = server.url.removeprefix("redis://")
        async with open_redis(Secret(f"redis://:{quote(word, safe='')}@{where}"), timeout=PATIENCE) as quotas:
            assert (await take(quotas)).remaining == 4
        for wrong in ("", ":s3cret-and-wrong@"):
            async with open_redis(Secret(f"redis://{wrong}{where}"), timeout=PATIENCE) as quotas:
                with pytest.raises(Unavailable, match=r"^limits: Auth") as refused:
                    await take(quotas)
                assert "s3cret" not in repr(refused.value)


async def test_the_number_of_a_database_is_in_the_address(server: Server) -> None:
    other = server.url.removesuffix("/1")
    async with (
        open_redis(Secret(server.url), timeout=PATIENCE) as one,
        open_redis(Secret(f"{other}/2"), timeout=PATIENCE) as two,
        open_redis(Secret(other), timeout=PATIENCE) as none,
    ):
        assert [(await take(quotas)).remaining for quotas in (one, two, none, one)] == [4, 4, 4, 3]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port/0", "redis://127.0.0.1/one"])
async def test_an_address_that_cannot_be_read_is_an_error_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"port|one"):
        await open_redis(Secret(url)).__aenter__()


async def test_what_the_block_raises_is_raised_as_it_was(server: Server) -> None:
    with pytest.raises(LookupError):
        async with open_redis(Secret(server.url)):
            raise LookupError
    with trio.move_on_after(0.1) as scope:
        async with open_redis(Secret(server.url)):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_tls_is_for_the_name_in_the_certificate_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    identity = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    identity.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server")
    files = ("--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file")
    words = [word for name in files for word in (name, str(tmp_path / ("authority" if "-ca-" in name else "server")))]
    with running("--tls-auth-clients", "no", *words) as plain:
        async with looking(plain) as raw:
            port = plain.port + 1
            await raw.config_set({"tls-port": port})
        async with open_redis(Secret(f"rediss://localhost:{port}"), timeout=PATIENCE) as quotas:
            with pytest.raises(Unavailable, match="ConnectionError"):  # an authority nobody knows
                await take(quotas)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority"))
        async with open_redis(Secret(f"rediss://127.0.0.1:{port}"), timeout=PATIENCE) as quotas:
            with pytest.raises(Unavailable, match="ConnectionError"):  # another name
                await take(quotas)
        async with open_redis(Secret(f"rediss://localhost:{port}"), timeout=PATIENCE) as quotas:
            assert (await take(quotas)).allowed
