"""`POST /v1/users/register` the way most would write it today: FastAPI, bcrypt, asyncpg's pool.

`uvicorn benchmarks.peers.fastapi_register:app --workers N` on a database of its own, PEER_DATABASE_URL. PEER_HASHING
says where bcrypt runs: `loop`, within the coroutine, as many a tutorial has it; or `threads`, in the framework's pool,
as its documentation advises for what blocks. Like ours it stores the registration, its code and its mail in one
transaction; with PEER_BROKER the mail is a Celery task instead (`celery_mail.py`), queued after the transaction.
PEER_ROUNDS is bcrypt's cost.
"""

import hmac
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal
from uuid import UUID, uuid4

import asyncpg
import bcrypt
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, StringConstraints

ROUNDS = int(os.environ.get("PEER_ROUNDS", "12"))
QUEUED = "PEER_BROKER" in os.environ
TABLES = """
    CREATE TABLE IF NOT EXISTS registrations (
        id uuid PRIMARY KEY, email text NOT NULL UNIQUE, password_hash text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS codes (
        registration_id uuid PRIMARY KEY REFERENCES registrations (id), mac bytea NOT NULL,
        expires_at timestamptz NOT NULL DEFAULT now() + interval '1 minute'
    );
    CREATE TABLE IF NOT EXISTS mails (
        id uuid PRIMARY KEY, recipient text NOT NULL, body text NOT NULL, at timestamptz NOT NULL DEFAULT now()
    );
"""
SECRET = secrets.token_bytes(32)


class Form(BaseModel):
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]
    password: Annotated[str, StringConstraints(min_length=8, max_length=72)]


class Registered(BaseModel):
    id: UUID
    email: str
    is_activated: bool = False


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["PEER_DATABASE_URL"]) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode("ascii")


@app.post("/v1/users/register", status_code=201)
async def register(form: Form, request: Request) -> Registered:
    on_loop = os.environ.get("PEER_HASHING") == "loop"
    password_hash = hashed(form.password) if on_loop else await run_in_threadpool(hashed, form.password)
    made, code = uuid4(), f"{secrets.randbelow(10_000):04}"
    mac = hmac.digest(SECRET, code.encode(), "sha256")
    letter = f"Your code is {code}. It lives one minute."
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        try:
            await connection.execute(
                "INSERT INTO registrations (id, email, password_hash) VALUES ($1, $2, $3)",
                made, form.email.lower(), password_hash)  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise HTTPException(409, "This address is registered already") from error
        await connection.execute("INSERT INTO codes (registration_id, mac) VALUES ($1, $2)", made, mac)
        if not QUEUED:
            await connection.execute(
                "INSERT INTO mails (id, recipient, body) VALUES ($1, $2, $3)", uuid4(), form.email, letter
            )
    if QUEUED:
        from benchmarks.peers.celery_mail import send_letter  # noqa: PLC0415 - the others have no broker

        send_letter.delay(form.email, letter)
    return Registered(id=made, email=form.email)


@app.get("/livez")
async def livez() -> Alive:  # noqa: ASYNC124 - as FastAPI's pages have it
    return Alive()


@app.get("/v1/health")
async def health(request: Request) -> Alive:
    await request.app.state.pool.fetchval("SELECT 1")
    return Alive()
