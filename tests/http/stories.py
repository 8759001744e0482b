"""What leads up to each POST that succeeds, and what is sent then: with a key, over and over."""

import copy
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from regsvc.domain.values import Secret
from regsvc.http.routes import Route
from regsvc.http.table import routes
from tests.http.doorstep import EMAIL, PASSWORD, Answer, Doorstep

KEY: Final = "0b7c1d52-8a4e-4f5a-9d3e-6c2f1a7b9e84"
TABLE: Final = {route.name: route for route in routes(development=True) if route.keyed}
ADMIN: Final = "a-machine-shows-this-to-administer-the-service"
WHO: Final = f"{EMAIL}:{PASSWORD}"
HOUR: Final = timedelta(hours=1)
SAID_OF_EACH: Final = re.compile("x-request-id|traceparent|(x-)?ratelimit.*|idempotency-replayed", re.IGNORECASE)


@dataclass
class Asking:
    """What is sent to a route, over and over."""

    door: Doorstep
    route: Route
    body: object = None
    how: dict[str, Any] = field(default_factory=dict)
    named: Mapping[str, object] = field(default_factory=dict)

    async def __call__(self, key: str | None = f'"{KEY}"', path: str | None = None, **other: Any) -> Answer:
        body, how = other.pop("body", self.body), {**self.how, **other}
        headers = [*how.pop("headers", ()), *([("Idempotency-Key", key)] if key is not None else [])]
        target = (path or self.route.path).format(**self.named)
        return await self.door.ask("POST", target, body, headers=headers, **how)


Story = Callable[[Doorstep], Awaitable[dict[str, Any]]]
STORIES: Final[dict[str, Story]] = {}


def story(tell: Story) -> Story:
    """Note what leads up to a request of the route that has the story's name, and what is sent then."""
    STORIES[tell.__name__] = tell
    return tell


async def asking(door: Doorstep, name: str) -> Asking:
    """Play what leads up to a request that will succeed."""
    door.knobs = replace(door.knobs, admin_token=Secret(ADMIN))
    told = await STORIES[name](door)
    return Asking(door, TABLE[name], told.pop("body", None), told, told.pop("named", {}))


@story
async def register(_: Doorstep) -> dict[str, Any]:  # noqa: ASYNC124 - stories are async
    return {"body": {"email": EMAIL, "password": PASSWORD}}


@story
async def activate(door: Doorstep) -> dict[str, Any]:
    await door.register()
    door.mint("0428")
    return {"body": {"code": "0428"}, "who": WHO}


@story
async def resend(door: Doorstep) -> dict[str, Any]:
    await door.register()
    door.shelf.now += HOUR
    return {"who": WHO}


@story
async def login(door: Doorstep) -> dict[str, Any]:  # noqa: ASYNC124 - stories are async
    door.member()
    return {"body": {"email": EMAIL, "password": PASSWORD}}


@story
async def verify(door: Doorstep) -> dict[str, Any]:
    await door.register()
    door.mint_verify("042813", lifetime=2 * HOUR)
    return {"body": {"email": EMAIL, "code": "042813"}}


@story
async def send_code(door: Doorstep) -> dict[str, Any]:
    await door.register()
    return {"body": {"email": EMAIL}}


@story
async def refresh(door: Doorstep) -> dict[str, Any]:
    door.member()
    return {"body": {"refresh_token": (await door.login())["refresh_token"]}}


async def inside(door: Doorstep, **body: str) -> dict[str, Any]:
    door.member()
    return {"bearer": (await door.login())["access_token"], **({"body": body} if body else {})}


@story
async def logout(door: Doorstep) -> dict[str, Any]:
    return await inside(door)


@story
async def logout_all(door: Doorstep) -> dict[str, Any]:
    return await inside(door)


@story
async def forgot_password(door: Doorstep) -> dict[str, Any]:  # noqa: ASYNC124 - stories are async
    door.member()
    return {"body": {"email": EMAIL}}


@story
async def reset_password(door: Doorstep) -> dict[str, Any]:  # noqa: ASYNC124 - stories are async
    return {"body": {"token": door.reset_token(door.member()), "new_password": "another of some length"}}


@story
async def change_password(door: Doorstep) -> dict[str, Any]:
    return await inside(door, current_password=PASSWORD, new_password="another of some length")


@story
async def propose_email(door: Doorstep) -> dict[str, Any]:
    return await inside(door, new_email="new@example.com", password=PASSWORD)


@story
async def confirm_email(door: Doorstep) -> dict[str, Any]:
    told = await inside(door, code="042813")
    proposal = {"new_email": "new@example.com", "password": PASSWORD}
    await door.ask("POST", "/v1/users/me/email", proposal, bearer=told["bearer"])
    door.mint_change(next(iter(door.shelf.users.values())), "042813", 2 * HOUR)
    return told


async def dead_mail(door: Doorstep) -> dict[str, Any]:  # noqa: ASYNC124 - stories are async
    return {"bearer": ADMIN, "named": {"mail_id": door.shelf.letter(door.member().id).id}}


@story
async def staff_retry_mail(door: Doorstep) -> dict[str, Any]:
    return await dead_mail(door)


@story
async def staff_discard_mail(door: Doorstep) -> dict[str, Any]:
    return await dead_mail(door)


def told(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return all of an answer but what is said of each request, and that it is one from before."""
    own = sorted((name.lower(), value) for name, value in answer.headers if not SAID_OF_EACH.fullmatch(name))
    return answer.status, own, answer.body


def state(door: Doorstep) -> object:
    """Return a copy of everything that was ever committed."""
    shelf = door.shelf
    tables = (shelf.addresses, shelf.users, shelf.logins, shelf.chain, shelf.codes, shelf.changes, shelf.letters)
    return copy.deepcopy((*tables, shelf.effects, shelf.trail))
