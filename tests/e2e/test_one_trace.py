"""One trace from a request to its mail, through the outbox, in whichever process that is sent; and its story told."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import trio
from click.testing import CliRunner

from regsvc.cli import main
from regsvc.observe import Trace
from tests.chaos.ledger import PASSWORD
from tests.e2e.people import client, new_email, on_database
from tests.service import Service
from tests.smtp_sink import open_sink
from tests.waiting import until


def mail_of(mailer: Service, trace_id: str, event: str) -> dict[str, object] | None:
    """The line of a mail's event in a trace."""
    return next((line for line in mailer.lines(event) if line.get("trace_id") == trace_id), None)


def all_said(service: Service, event: str, trace_ids: Iterable[str]) -> bool:
    """Whether there is a line of an event in each trace."""
    return all(mail_of(service, trace_id, event) for trace_id in trace_ids)


def story(trace_id: str, *services: Service) -> list[dict[str, object]]:
    """What `regsvc trace` tells, from the logs of services."""
    logs = [str(service.log) for service in services]
    found = CliRunner().invoke(main, ("trace", trace_id, *logs, "--json"), catch_exceptions=False)
    assert found.exit_code == 0, found.stderr
    return [json.loads(line)["line"] for line in found.stdout.splitlines()]


async def test_every_mail_is_in_the_trace_of_the_request_that_asked_for_it(tmp_path: Path, database: str) -> None:
    email = new_email()
    with open_sink() as sink:
        sink.refusals[email] = "451 later"
        relay = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(sink.port), "SMTP_TLS": "none"}
        told = {**relay, "MAIL_CHANNEL": "smtp", "MAIL_FROM": "regsvc@example.test", "RESEND_COOLDOWN": "0"}
        with (
            on_database(tmp_path / "front", database, 1, ROLES="http", **told) as [front],
            on_database(tmp_path / "mailer", database, 1, ROLES="http,mailer", **told) as [mailer],
        ):
            async with client(front) as http:

                async def ask(path: str, form: Mapping[str, str], status: int, **how: object) -> str:
                    """Ask for a mail in a trace of its own; return that."""
                    parent = Trace.new()
                    headers = {"traceparent": str(parent), "X-Request-ID": f"asks-for-{path.rpartition('/')[2]}"}
                    answer = await http.post(path, json=form, headers=headers, **how)  # type: ignore[arg-type]  # auth
                    assert answer.status_code == status, answer.text
                    place = Trace.parse(answer.headers["traceparent"])
                    assert place is not None
                    assert place.trace_id == parent.trace_id
                    return parent.trace_id

                # Before a letter of a kind was sent, a newer one would take its place.
                who = (email, PASSWORD)
                registered = await ask("/v1/users/register", {"email": email, "password": PASSWORD}, 201)
                await until(lambda: mail_of(mailer, registered, "mail_deferred") is not None)
                del sink.refusals[email]
                [first] = await trio.to_thread.run_sync(sink.wait, 1)
                resent = await ask("/v1/users/resend-code", {}, 202, auth=who)
                second = (await trio.to_thread.run_sync(sink.wait, 2))[1]
                proved = await ask("/v1/auth/send-code", {"email": email}, 202)
                await trio.to_thread.run_sync(sink.wait, 3)
                done = await http.post("/v1/users/activate", json={"code": second.code}, auth=who)
                assert done.status_code == 200
                assert first.code != second.code or first.raw != second.raw
                reset = await ask("/v1/auth/forgot-password", {"email": email}, 202)
                await trio.to_thread.run_sync(sink.wait, 4)
            asked = {registered: "activation", resent: "activation", proved: "verify", reset: "reset"}
            for said, service in (("mail_sent", mailer), ("http_request", front)):
                await until(partial(all_said, service, said, asked))
            for trace_id, letter in asked.items():
                look_at(story(trace_id, mailer, front), letter, deferred=trace_id == registered)
            [by_request] = {line["trace_id"] for line in story("asks-for-forgot-password", front, mailer)}
            assert by_request == reset
            whole = {line.get("trace_id") for line in story(str(done.json()["id"]), front, mailer)}
            assert asked.keys() <= whole, "an account's id leads to all that was done for it"


def look_at(told: list[dict[str, object]], letter: str, *, deferred: bool) -> None:
    """Hold a story to its order: the request in one process, the mail in another."""
    events = [line["event"] for line in told if line["level"] != "debug"]
    mail = ["code_minted", "mail_sent"]
    assert [event for event in events if event in {"code_minted", "mail_sent", "mail_deferred"}] == (
        ["code_minted", "mail_deferred", *mail] if deferred else mail
    )
    mails = [line for line in told if "mail_id" in line]
    assert {line["letter"] for line in mails} == {letter}
    assert len({line["mail_id"] for line in mails}) == 1
    assert {line["actor"] for line in mails} == {"mailer"}
    [request] = [line for line in told if line["event"] == "http_request"]
    assert request["span_id"] not in {line["span_id"] for line in mails}
    assert len({line["span_id"] for line in mails}) == 1 + deferred, "a span for each try"
