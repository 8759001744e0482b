"""A client of regsvc: copy it and make it yours. It needs httpx and nothing else."""

import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Self, TypedDict, cast
from uuid import uuid4

import httpx


class User(TypedDict):
    """An account, as much of it as is used here."""

    id: str
    email: str
    username: str | None


class Session(TypedDict):
    """A login on a device, likewise."""

    id: str
    device: str
    current: bool


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it that
    """The service said no: `error` is for programs to compare, the text for people, `hint` what they can do now."""

    def __init__(self, status: int, members: dict[str, Any]) -> None:
        super().__init__(members.get("detail", f"The answer was {status}."))
        self.status, self.error, self.hint, self.members = status, members.get("error"), members.get("hint"), members


class Bearer(httpx.Auth):
    """Shows the access token; when it is good no more, gets a new one and asks once again."""

    requires_response_body = True

    def __init__(self, url: str, tokens: dict[str, Any]) -> None:
        self._refresh, self.tokens = f"{url}/v1/auth/refresh", tokens

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Speak with the service for one request; httpx returns what was answered last."""
        request.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"
        answer = yield request
        if answer.status_code == 401 and answer.json().get("error") == "InvalidAccessToken":
            answer = yield httpx.Request("POST", self._refresh, json={"refresh_token": self.tokens["refresh_token"]})
            if answer.is_success:  # each refresh token is good once: keep the new one
                self.tokens = answer.json()
                request.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"
                yield request


class Client:
    """One person's way to the service at `url`, open in a `with`. Methods raise Problem, or httpx.TransportError.

    What is lost on the way is sent again: each POST has a key, so that it is done once and its first answer comes.
    """

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url, self._http = url, httpx.Client(base_url=url, timeout=10, transport=transport)
        self.bearer: Bearer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def register(self, email: str, password: str) -> None:
        """Ask for an account; a code goes to the address."""
        self._ask("POST", "/v1/users/register", {"email": email, "password": password})

    def activate(self, email: str, password: str, code: str) -> None:
        """Show the code."""
        self._ask("POST", "/v1/users/activate", {"code": code}, httpx.BasicAuth(email, password))

    def login(self, email: str, password: str) -> User:
        """Begin a session."""
        tokens = self._ask("POST", "/v1/auth/login", {"email": email, "password": password})
        self.bearer = Bearer(self._url, tokens)
        return cast("User", tokens["user"])

    def me(self) -> User:
        """Return the account."""
        return cast("User", self._ask("GET", "/v1/users/me"))

    def change_password(self, current: str, new: str) -> None:
        """Exchange the password; every other session ends."""
        self._ask("POST", "/v1/users/me/password", {"current_password": current, "new_password": new})

    def sessions(self) -> list[Session]:
        """Return the account's sessions, the newest first."""
        return cast("list[Session]", self._ask("GET", "/v1/sessions")["sessions"])

    def logout(self) -> None:
        """End this session."""
        self._ask("POST", "/v1/auth/logout")
        self.bearer = None

    def _ask(self, method: str, path: str, body: object = None, auth: httpx.Auth | None = None) -> dict[str, Any]:
        headers = {"Idempotency-Key": f'"{uuid4()}"'} if method == "POST" else {}
        request = self._http.build_request(method, path, json=body, headers=headers)
        answer = self._send(request, auth or self.bearer)
        content = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        if answer.is_error:
            raise Problem(answer.status_code, content)
        return content

    def _send(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        for _ in range(2):
            with suppress(httpx.TransportError):
                answer = self._http.send(request, auth=auth)
                if not _asks_for_patience(answer):
                    return answer
                time.sleep(float(answer.headers["Retry-After"]))
        return self._http.send(request, auth=auth)


def _asks_for_patience(answer: httpx.Response) -> bool:
    """Tell whether the same request, sent again in a moment, is likely to be answered."""
    return answer.status_code == 503 or (answer.status_code == 409 and answer.json()["error"] == "IdempotencyKeyInUse")
