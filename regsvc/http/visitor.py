"""Who shows an access token: asked before anything else of the request is looked at."""

from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec

from regsvc.domain.refusals import Refused
from regsvc.flows.session import Sessions, Visitor
from regsvc.http import wire
from regsvc.http.caller import asked
from regsvc.http.reply import Answer, View

P = ParamSpec("P")
Visited = Callable[Concatenate[Visitor, P], Awaitable[Answer]]
"""A view that is told who asks."""


def visited(sessions: Sessions, view: Visited[P]) -> View:
    """Return the view for whoever shows an access token of a session that lives; everybody else gets the one 401."""

    async def seen(*args: P.args, **kwargs: P.kwargs) -> Answer:
        request = asked()
        visitor = await sessions.authenticate(wire.bearer(request.headers))
        if isinstance(visitor, Refused):
            return visitor
        request.caller.user_id = str(visitor.user.id)
        return await view(visitor, *args, **kwargs)

    return seen
