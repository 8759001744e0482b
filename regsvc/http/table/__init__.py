"""The one route table: it drives the routes, their aliases, and the OpenAPI document.

A test holds app, table and document to each other.
"""

from regsvc.http.quota import limited
from regsvc.http.routes import Route
from regsvc.http.table.account import ACCOUNT, UNIFORM_ACCOUNT
from regsvc.http.table.development import DEVELOPMENT
from regsvc.http.table.documentation import DOCUMENTATION
from regsvc.http.table.keyed import keyed
from regsvc.http.table.ops import METRICS, OPERATIONS
from regsvc.http.table.profile import PROFILE
from regsvc.http.table.session import SESSION
from regsvc.http.table.staff import STAFF


def routes(*, development: bool, uniform: bool = False, metrics: bool = True) -> tuple[Route, ...]:
    """Return every route, those of the mailbox and of metrics only where there are such.

    `uniform`: as that duplicate policy answers.
    """
    here = (*(UNIFORM_ACCOUNT if uniform else ACCOUNT), *SESSION, *PROFILE, *STAFF, *OPERATIONS, *DOCUMENTATION)
    here = (*here, *METRICS) if metrics else here
    return tuple(limited(keyed(route)) for route in ((*here, *DEVELOPMENT) if development else here))
