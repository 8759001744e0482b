"""`GET /v1/users/me` the way most would write it today: FastAPI, PyJWT, asyncpg's pool, as their documentation has it.

`uvicorn benchmarks.peers.fastapi_me:app`, beside a regsvc whose tables and signing keys it reads: PEER_DATABASE_URL,
PEER_JWKS_URL, PEER_ISSUER. It checks what ours checks and answers what ours answers.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import asyncpg
import jwt
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

AUDIENCE = "regsvc"
VISIT = """
    SELECT u.id, u.email, u.username, u.locale, u.role, u.created_at, u.activated_at, u.updated_at, u.disabled_at,
        s.ended_at, s.expires_at
    FROM sessions AS s JOIN users AS u ON u.id = s.user_id
    WHERE s.id = $1
"""


class User(BaseModel):
    id: UUID
    email: str
    username: str | None
    locale: str | None
    role: Literal["user", "admin"]
    created_at: datetime
    activated_at: datetime
    updated_at: datetime


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    found = jwt.PyJWKClient(os.environ["PEER_JWKS_URL"]).get_signing_keys()
    app.state.keys = {key.key_id: key for key in found}
    app.state.issuer = os.environ["PEER_ISSUER"]
    async with asyncpg.create_pool(os.environ["PEER_DATABASE_URL"]) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


async def current_user(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> User:
    refused = HTTPException(401, "Could not validate credentials", headers={"WWW-Authenticate": "Bearer"})
    state, token = request.app.state, credentials.credentials
    try:
        key = state.keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=AUDIENCE, issuer=state.issuer)
        session = UUID(claims["sid"])
    except (jwt.InvalidTokenError, KeyError, ValueError) as error:
        raise refused from error
    row = await state.pool.fetchrow(VISIT, session)
    if row is None or row["ended_at"] or row["disabled_at"] or row["expires_at"] <= datetime.now(UTC):
        raise refused
    return User.model_validate(dict(row))


@app.get("/v1/users/me")
async def me(user: Annotated[User, Depends(current_user)]) -> User:  # noqa: ASYNC124 - as FastAPI's pages have it
    return user


@app.get("/livez")
async def livez() -> Alive:  # noqa: ASYNC124 - likewise
    return Alive()
