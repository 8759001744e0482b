"""Everything of asyncpg beyond its documented API that this package leans on, in one place.

Imported here under plain names, and listed in `LEANED_ON` with the shape relied on; `changed()` names what differs in
the asyncpg that is installed. A contract test holds it empty, so moving the pin in pyproject.toml starts there.
"""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable
from typing import Any, Final

from asyncpg import compat, utils
from asyncpg.connect_utils import (  # type: ignore[attr-defined]  # not all in the stubs
    SessionAttribute,
    SSLMode,
    SSLNegotiation,
    _can_use_connection,
    _parse_connect_arguments,
)
from asyncpg.exceptions import ConnectionDoesNotExistError, InternalClientError
from asyncpg.protocol.protocol import NO_TIMEOUT, Protocol

__all__ = [
    "LEANED_ON",
    "NO_TIMEOUT",
    "ConnectionDoesNotExistError",
    "InternalClientError",
    "Protocol",
    "SSLMode",
    "SSLNegotiation",
    "SessionAttribute",
    "can_use_connection",
    "changed",
    "let_wait",
    "parse_connect_arguments",
    "quote_ident",
]

can_use_connection = _can_use_connection
parse_connect_arguments = _parse_connect_arguments
quote_ident = utils._quote_ident  # noqa: SLF001  # the one place for asyncpg's internals

_CONNECTION: Final = "asyncpg.connection:Connection."
_PROTOCOL: Final = "asyncpg.protocol.protocol:BaseProtocol."
_CONNECT: Final = "asyncpg.connect_utils:"

LEANED_ON: Final[dict[str, str]] = {
    # Driven by us, as an event loop would.
    _PROTOCOL + "connection_made": "self, transport",
    _PROTOCOL + "data_received": "self, data",
    _PROTOCOL + "connection_lost": "self, exc",
    _PROTOCOL + "set_connection": "self, connection",
    # Called by us.
    _PROTOCOL + "abort": "self",
    _PROTOCOL + "query": "self, query, timeout",
    _PROTOCOL + "bind_execute": "self, state, args, portal_name, limit, return_extra, timeout",
    _PROTOCOL + "is_connected": "self",
    _PROTOCOL + "is_in_transaction": "self",
    _PROTOCOL + "_get_timeout": "self, timeout",
    # Overridden by us, and called by asyncpg under these names.
    _PROTOCOL + "_wait_for_cancellation": "self, timeout=None",
    _PROTOCOL + "bind_execute_many": "self, state, args, portal_name, timeout, return_rows",
    _PROTOCOL + "copy_in": "self, copy_stmt, reader, data, records, record_stmt, timeout",
    _PROTOCOL + "copy_out": "self, copy_stmt, sink, timeout",
    _CONNECTION + "_execute": (
        "self, query, args, limit, timeout, *, return_status=False, ignore_custom_codec=False, record_class=None"
    ),
    _CONNECTION + "_prepare": "self, query, *, name=None, timeout=None, use_cache=False, record_class=None",
    _CONNECTION + "_executemany": "self, query, args, timeout, return_rows=False, record_class=None",
    _CONNECTION + "_check_open": "self",
    _CONNECTION + "_cleanup": "self",
    _CONNECTION + "_cancel_current_command": "self, waiter, cancel_waiter=None",
    _CONNECTION + "_process_notification": "self, pid, channel, payload",
    _CONNECTION + "_drop_global_statement_cache": "self",
    _CONNECTION + "_drop_local_statement_cache": "self",
    _CONNECTION + "_drop_global_type_cache": "self",
    _CONNECTION + "_drop_local_type_cache": "self",
    _CONNECTION + "_copy_in": "self, copy_stmt, source, timeout",
    _CONNECTION + "_copy_out": "self, copy_stmt, output, timeout",
    _CONNECTION + "get_reset_query": "self",
    # Read by us: slots of a connection, fields of the protocol.
    _CONNECTION + "_aborted": "-",
    _CONNECTION + "_config": "-",
    _CONNECTION + "_listeners": "-",
    _CONNECTION + "_loop": "-",
    _CONNECTION + "_pool_release_ctr": "-",
    _CONNECTION + "_protocol": "-",
    _CONNECTION + "_query_loggers": "-",
    _CONNECTION + "_stmt_cache": "-",
    _PROTOCOL + "_auth_received": "-",
    _PROTOCOL + "backend_pid": "-",
    _PROTOCOL + "backend_secret": "-",
    "asyncpg.connection:_StatementCache.get": "self, query, *, promote=True",
    # Used to connect.
    _CONNECT + "_parse_connect_arguments": (
        "*, dsn, host, port, user, password, passfile, database, command_timeout, statement_cache_size, "
        "max_cached_statement_lifetime, max_cacheable_statement_size, ssl, direct_tls, server_settings, "
        "target_session_attrs, krbsrvname, gsslib, service, servicefile"
    ),
    _CONNECT + "_can_use_connection": "connection, attr",
    _CONNECT + "_ConnectionParameters._fields": (
        "user password database ssl sslmode ssl_negotiation server_settings target_session_attrs krbsrvname gsslib"
    ),
    _CONNECT + "_ClientConfiguration._fields": (
        "command_timeout statement_cache_size max_cached_statement_lifetime max_cacheable_statement_size"
    ),
    _CONNECT + "SSLMode._member_names_": "disable allow prefer require verify_ca verify_full",
    _CONNECT + "SSLNegotiation._member_names_": "postgres direct",
    "asyncpg.utils:_quote_ident": "ident",
    "asyncpg.compat:wait_for": "fut, timeout",
}

_wait_for = compat.wait_for


def wait_for(fut: Awaitable[Any], timeout: float | None) -> Awaitable[Any]:
    """Wait as asyncpg's `compat.wait_for` where asyncio runs; elsewhere hand the awaitable back.

    Our Protocol passes no timeout to the parts that call it, and holds them to one of its own.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return fut
    return _wait_for(fut, timeout)


def let_wait() -> None:
    """Put our `wait_for` in place of asyncpg's: COPY and executemany call it, timeout or not, and it wants asyncio.

    The only thing this package changes in the process; asyncpg under asyncio does not notice.
    """
    compat.wait_for = wait_for  # type: ignore[assignment]  # awaited at once, so any awaitable will do


def _shape(thing: Any) -> str:
    """Return the parameters of a function without annotations, the words of a tuple, or a dash."""
    if isinstance(thing, list | tuple):
        return " ".join(thing)
    if not callable(thing):
        return "-"
    signature = inspect.signature(thing)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))[1:-1]


def changed(leaned_on: dict[str, str] = LEANED_ON) -> list[str]:
    """Return a line for each internal that is gone or has another shape than the one listed; empty when all is well."""
    lines = []
    for path, expected in leaned_on.items():
        module, _, dotted = path.partition(":")
        thing: Any = importlib.import_module(module)
        for name in dotted.split("."):
            thing = getattr(thing, name, None)
        found = "gone" if thing is None else _shape(thing)
        if found != expected:
            lines.append(f"{path}: expected ({expected}), found ({found})")
    return lines
