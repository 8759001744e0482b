"""What a line of the route table is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from regsvc.domain.quota import Limit
from regsvc.http import kinds
from regsvc.http.forms import Form
from regsvc.http.kinds import Kind

JSON: Final = "application/json"
HTML: Final = "text/html"
PLAIN: Final = "text/plain"
EVENTS: Final = "text/event-stream"
OPENMETRICS: Final = "application/openmetrics-text"
ANY: Final = "*/*"


class Auth(Enum):
    """What a route asks for."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    COOKIE = "cookie"  # or the same in the body
    METRICS = "metrics"  # its own bearer token, where the service has one


class Tag(Enum):
    """What a route is about; the value is its heading in the document."""

    ACCOUNT = "Register, activate"
    SESSION = "Log in, sessions, recovery"
    PROFILE = "Profile"
    ADMINISTRATION = "Administration"
    OPERATIONS = "Operations"
    DOCUMENTATION = "Documentation"
    DEVELOPMENT = "Development mailbox"
    ALIASES = "Aliases"


@dataclass(frozen=True, slots=True)
class Success:
    """How a route answers when all is well; `example` is a value of `model`."""

    description: str
    model: type[BaseModel] | None = None
    example: Mapping[str, Any] | None = None
    status: int = 200
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the query or of the path; the schema is JSON Schema."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]
    required: bool = False  # those in a path always are

    @property
    def free(self) -> bool:
        """Whether it is a text of any shape."""
        return self.schema.get("type") == "string" and not self.schema.keys() & {"enum", "format", "pattern"}


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the contract. `path` is the canonical one, as OpenAPI writes it; `name` is its view's.

    `limits`: what may refuse it, beside what every limited route has.
    """

    name: str
    method: str
    path: str
    tag: Tag
    summary: str
    success: Success
    description: str = ""
    aliases: tuple[str, ...] = ()
    auth: Auth = Auth.NONE
    body: type[Form] | None = None
    body_example: Mapping[str, Any] | None = None
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[Kind, ...] = ()
    limits: tuple[Limit, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path it answers at, the canonical one first."""
        return (self.path, *self.aliases)

    @property
    def keyed(self) -> bool:
        """Whether it takes an Idempotency-Key: every POST does something; the other methods may be sent twice."""
        return self.method == "POST"

    def taking(self, *parameters: Parameter) -> "Route":
        """Return the route with these as its query; a text may be malformed, a value of a given shape is wrong."""
        text = any(parameter.free for parameter in parameters)
        problems = (kinds.MALFORMED_REQUEST, *self.problems) if text else self.problems
        return replace(self, parameters=(*self.parameters, *parameters), problems=problems)


def under_v1(*paths: str, bare: str | None = None) -> tuple[str, ...]:
    """Return the aliases of `/v1` + the first path: the other ones, all under `/api/v1`, and one without a prefix."""
    others = tuple(f"/v1{path}" for path in paths[1:])
    legacy = tuple(f"/api/v1{path}" for path in paths)
    return (*others, *legacy, *(() if bare is None else (bare,)))
