"""Traces of real services, as a collector gets them: one registration, from the request to its mail."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trio

from regsvc.observe import FORBIDDEN, Trace
from tests import canaries
from tests.collector import Collected, Collector, open_collector
from tests.e2e.people import SECRET, Person, client, new_email, on_database
from tests.service import Service, free_port
from tests.smtp_sink import Sink, open_sink
from tests.waiting import until

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CODE = re.compile(r"^\d{10}\r?$", re.MULTILINE)


@contextmanager
def front_and_mailer(
    folder: Path, database: str, collector: Collector, sink: Sink
) -> Iterator[tuple[Service, Service]]:
    """Run two services on one database, started at once: one takes requests, the other has the only mailer."""
    told = {
        "DATABASE_URL": database,
        "PROFILE": "dev",
        "SECRET": SECRET,
        "PASSWORD_ROUNDS": "4",
        "CODE_LENGTH": "10",
        "MAIL_FROM": "regsvc@example.test",
        "MAIL_CHANNEL": "smtp",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(sink.port),
        "SMTP_TLS": "none",
        "OTLP_ENDPOINT": collector.url,
    }
    with ExitStack() as stack:
        services = []
        for roles in ("http", "http,mailer"):
            environ = {f"REGSVC_{name}": value for name, value in {**told, "ROLES": roles}.items()}
            services.append(one := Service(folder / roles, environ))
            stack.callback(one.end)
            one.launch()
        for one in services:
            one.wait_ready()
        yield services[0], services[1]


async def test_a_registration_is_one_trace_from_the_request_to_its_mail(tmp_path: Path, database: str) -> None:
    with (
        open_sink() as sink,
        open_collector() as collector,
        front_and_mailer(tmp_path, database, collector, sink) as (front, mailer),
    ):
        async with client(front) as http:
            person = Person(http, new_email())
            made = await person.register()
            place = Trace.parse(made.headers["traceparent"])
            assert made.status_code == 201
            assert place is not None
            [mail] = await trio.to_thread.run_sync(sink.wait, 1)
            code = CODE.findall(mail.text)[0].strip()
            canaries.KNOWN.add_code(code)
            done = await http.post("/v1/users/activate", json={"code": code}, auth=(person.email, person.password))
            assert done.status_code == 200
            for traceparent in (PARENT, PARENT.replace("4b", "00", 1)[:-2] + "00"):
                headers = {"traceparent": traceparent, "Authorization": "Bearer nobody's"}
                assert (await http.get("/v1/users/me", headers=headers)).status_code == 401
            await http.get("/nowhere/at-all?with=words")
            # The end of a worker waits for its last spans no longer than a second.
            seen = partial(all_are_there, collector, place.trace_id)
            await trio.to_thread.run_sync(collector.wait, seen)
        assert (front.terminate(), mailer.terminate()) == (0, 0)
        spans = collector.of(place.trace_id)
        look_at(spans, place, front, mailer)
        look_at_others(collector, PARENT.split("-")[1], PARENT.replace("4b", "00", 1).split("-")[1])
        look_for_secrets(collector, person.email)
        assert library_words(front) + library_words(mailer) == []


def library_words(service: Service) -> list[dict[str, object]]:
    return [line for line in service.lines("library_message") if line["level"] != "debug"]


def all_are_there(collector: Collector, trace_id: str) -> bool:
    """Whether the collector has heard of a registration's mail, and of the last request."""
    statuses = {one.facts.get("http.response.status_code") for one in collector.spans}
    return "consumer" in {one.kind for one in collector.of(trace_id)} and 404 in statuses


def look_at(spans: list[Collected], place: Trace, front: Service, mailer: Service) -> None:
    """Hold a registration's trace to what was done, and to what the log says of it."""
    by_id = {one.span_id: one for one in spans}
    [request] = [one for one in spans if one.kind == "server"]
    assert request.name == "POST /v1/users/register"
    assert request.span_id == place.span_id
    assert (request.parent_id, request.failed) == ("", False)
    assert request.facts == {
        "http.request.method": "POST",
        "http.route": "/v1/users/register",
        "http.response.status_code": 201,
        "url.scheme": "http",
    }
    [flow] = [one for one in spans if one.name == "account.register"]
    assert (flow.parent_id, flow.kind) == (request.span_id, "internal")
    [send] = [one for one in spans if one.kind == "producer"]
    [added] = [one for one in spans if one.name == "add"]
    [process] = [one for one in spans if one.kind == "consumer"]
    [smtp] = [one for one in spans if one.name == "smtp"]
    [hashed] = [one for one in spans if one.name == "hash"]
    assert (send.parent_id, added.parent_id, process.parent_id) == (flow.span_id, send.span_id, send.span_id)
    assert (smtp.parent_id, hashed.parent_id) == (process.span_id, flow.span_id)
    assert {one.name for one in spans if one.parent_id == hashed.span_id} == {"hash wait", "hash work"}
    statements = [one for one in spans if one.facts.get("db.system.name") == "postgresql"]
    assert {"lock_address", "mint_for_claim", "done"} <= {one.name for one in statements}
    assert all(one.kind == "client" and one.facts["db.operation.name"] == one.name for one in statements)
    here, there = request.of, process.of
    for one in spans:
        assert one.began <= one.ended
        assert one.of == (there if one is process or by_id.get(one.parent_id) is process else here)
    assert here["service.name"] == there["service.name"] == "regsvc"
    assert here["service.instance.id"] != there["service.instance.id"]
    [line] = [line for line in front.lines("http_request") if line["trace_id"] == place.trace_id]
    [sent] = [line for line in mailer.lines("mail_sent") if line["trace_id"] == place.trace_id]
    assert (line["span_id"], sent["span_id"]) == (request.span_id, process.span_id)
    assert process.facts["messaging.message.id"] == sent["mail_id"]


def look_for_secrets(collector: Collector, email: str) -> None:
    """Find nothing of what is said in confidence, nor an address."""
    canaries.assert_none(collector.raw, "the spans")
    assert email.encode() not in collector.raw
    assert b"127.0.0.1" not in collector.raw.replace(b"server.address\x12\x0b\n\t127.0.0.1", b"")
    names = {name for one in collector.spans for name in one.facts} - {"http.response.status_code"}
    assert [name for name in names if FORBIDDEN.search(name.replace(".", "_"))] == []


def look_at_others(collector: Collector, kept: str, left: str) -> None:
    """Hold what else was asked to what a client said of its trace, and to what nobody may say."""
    assert collector.of(left) == []
    [request, *within] = collector.of(kept)
    assert (request.name, request.kind, request.parent_id) == ("GET /v1/users/me", "server", PARENT.split("-")[2])
    assert request.facts["regsvc.refusal"] == "invalid_access_token"
    assert {one.parent_id for one in within} <= {request.span_id}, "it is refused at the door"
    [lost] = [one for one in collector.spans if one.facts.get("http.response.status_code") == 404]
    assert (lost.name, lost.facts.get("http.route")) == ("GET", None)
    assert b"nowhere" not in collector.raw


async def test_a_collector_that_is_away_costs_a_line(tmp_path: Path, database: str) -> None:
    port = free_port()
    with on_database(tmp_path, database, OTLP_ENDPOINT=f"http://127.0.0.1:{port}") as [service]:
        async with client(service) as http:

            async def ask() -> None:
                assert (await http.get("/v1/health")).status_code == 200

            for _ in range(3):
                await ask()
                await until(partial(service.lines, "trace_collector_down"))
            with open_collector(port) as collector:
                while not service.lines("trace_collector_up"):
                    await ask()
                    await trio.to_thread.run_sync(collector.wait, lambda: collector.requests)
                    with trio.move_on_after(0.2):
                        await until(partial(service.lines, "trace_collector_up"))
                await until(partial(service.lines, "spans_dropped"))
        service.terminate()
        down, *_ = service.lines("trace_collector_down")
        assert str(port) in str(down["reason"])
        assert library_words(service) == []
