"""The refresh token in a cookie: only for pages of the service's own origin, and never a foreign page's to use."""

from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from regsvc.http.cookies import NAME, Cookies
from tests.http.doorstep import EMAIL, PASSWORD, URL, Answer, Doorstep

CLEARED = f"{NAME}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
ATTRIBUTES = "Max-Age=604800; Path=/; Secure; HttpOnly; SameSite=Lax"
REFRESH = "/v1/auth/refresh"


@pytest.fixture
def kept(door: Doorstep) -> Doorstep:
    """A service that hands out cookies."""
    door.knobs = replace(door.knobs, cookies=True)
    return door


async def logged_in(door: Doorstep) -> tuple[str, str]:
    """Return an access token, and the refresh token of the cookie that came with it."""
    door.member()
    answer = await door.ask("POST", "/v1/auth/login", {"email": EMAIL, "password": PASSWORD})
    return answer.json["access_token"], of(answer)


def of(answer: Answer) -> str:
    """Return the refresh token that an answer sets in a cookie, and nowhere else."""
    assert answer.status == 200, answer.body
    assert "refresh_token" not in answer.json
    value, _, attributes = answer.headers["Set-Cookie"].partition("; ")
    assert (value.partition("=")[0], attributes) == (NAME, ATTRIBUTES)
    token: str = value.partition("=")[2]
    assert token.encode() not in answer.body
    return token


async def refresh(door: Doorstep, *cookies: str, body: object = None, **headers: str) -> Answer:
    pairs = [("Cookie", cookie) for cookie in cookies]
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await door.ask("POST", REFRESH, {} if body is None else body, headers=pairs)


async def test_a_cookie_takes_the_place_of_the_token(kept: Doorstep) -> None:
    _, first = await logged_in(kept)
    second = of(await refresh(kept, f"other=1; {NAME}={first}; more=2", Origin=URL, Sec_Fetch_Site="same-origin"))
    assert second != first
    third = of(await refresh(kept, f"{NAME}={second}"))  # a program that is no browser
    of(await refresh(kept, body={"refresh_token": third}))  # or one that keeps no cookies


async def test_a_verified_code_sets_a_cookie_too(kept: Doorstep) -> None:
    await kept.register()
    kept.mint_verify("042813")
    of(await kept.ask("POST", "/v1/auth/verify", {"email": EMAIL, "code": "042813"}))


async def test_a_browser_would_take_it(kept: Doorstep) -> None:
    kept.member()
    answer = await kept.ask("POST", "/v1/auth/login", {"email": EMAIL, "password": PASSWORD})
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel.key, morsel["path"], morsel["domain"]) == (NAME, "/", "")
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Lax")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"{URL}.evil.example"},
        {"Origin": URL.replace("https", "http")},
        {"Origin": f"{URL}:8443"},
        {"Origin": "https://app.example.org"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": URL, "Sec_Fetch_Site": "cross-site"},
    ],
)
async def test_a_foreign_page_cannot_use_it(kept: Doorstep, headers: dict[str, str]) -> None:
    _, token = await logged_in(kept)
    answer = await refresh(kept, f"{NAME}={token}", **headers)
    answer.problem(403, "Forbidden")
    assert "Set-Cookie" not in answer.headers  # it must not log anybody out either
    of(await refresh(kept, f"{NAME}={token}"))


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("https://app.example.org", "same-site", 200),
        ("https://app.example.org", None, 200),
        (URL, "same-origin", 200),
        ("https://app.example.org", "cross-site", 403),
        ("https://app.example.org.evil.example", "same-site", 403),
        ("https://blog.example.org", "same-site", 403),
        (None, "same-site", 403),
        ("null", "same-site", 403),
    ],
)
async def test_a_listed_page_of_a_sibling_host_can(
    kept: Doorstep, origin: str | None, site: str | None, status: int
) -> None:
    kept.knobs = replace(kept.knobs, cors_origins=["https://app.example.org"])
    _, token = await logged_in(kept)
    named = {"Origin": origin, "Sec_Fetch_Site": site}
    answer = await refresh(kept, f"{NAME}={token}", **{name: value for name, value in named.items() if value})
    assert answer.status == status
    assert ("Access-Control-Allow-Credentials" in answer.headers) == (origin == "https://app.example.org")


async def test_two_origins_are_one_too_many(kept: Doorstep) -> None:
    _, token = await logged_in(kept)
    pairs = [("Cookie", f"{NAME}={token}"), ("Origin", URL), ("Origin", "https://evil.example")]
    (await kept.ask("POST", REFRESH, {}, headers=pairs)).problem(403, "Forbidden")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_form_cannot_use_it(kept: Doorstep, media_type: str) -> None:
    _, token = await logged_in(kept)
    answer = await refresh(kept, f"{NAME}={token}", Content_Type=media_type)
    answer.problem(415, "UnsupportedMediaType")


@pytest.mark.parametrize(
    "cookies",
    [
        [],
        ["other=1"],
        [f"{NAME}="],
        [f"{NAME}=a b"],
        [f'{NAME}="TOKEN"'],
        [f"{NAME}=TOKEN; {NAME}=TOKEN"],
        [f"{NAME}=TOKEN", f"{NAME}=x"],
        [f"{NAME}={'x' * 129}"],
        ["__host-regsvc_refresh=TOKEN"],
        ["regsvc_refresh=TOKEN"],
        [NAME],
    ],
)
async def test_what_is_no_cookie_of_ours_is_none(kept: Doorstep, cookies: list[str]) -> None:
    _, token = await logged_in(kept)
    answer = await refresh(kept, *(cookie.replace("TOKEN", token) for cookie in cookies))
    answer.problem(401, "InvalidRefreshToken")
    of(await refresh(kept, f"{NAME}={token}"))


async def test_a_token_in_the_body_comes_first(kept: Doorstep) -> None:
    _, token = await logged_in(kept)
    other = "x" * 43
    answer = await refresh(kept, f"{NAME}={token}", body={"refresh_token": other}, Origin="https://app.example.org")
    answer.problem(401, "InvalidRefreshToken")
    assert "Set-Cookie" not in answer.headers
    of(await refresh(kept, f"{NAME}={other}", body={"refresh_token": token}))


async def test_a_refused_cookie_is_taken_back(kept: Doorstep) -> None:
    answer = await refresh(kept, f"{NAME}={'x' * 43}")
    answer.problem(401, "InvalidRefreshToken")
    assert answer.headers["Set-Cookie"] == CLEARED


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/auth/logout", None),
        ("POST", "/v1/auth/logout/all", None),
        ("DELETE", "/v1/sessions", None),
        ("DELETE", "/v1/sessions/OWN", None),
        ("DELETE", "/v1/users/me", {"password": PASSWORD}),
    ],
)
async def test_the_end_takes_it_back(kept: Doorstep, method: str, path: str, body: Any) -> None:
    access, _ = await logged_in(kept)
    (own,) = kept.shelf.logins
    answer = await kept.ask(method, path.replace("OWN", str(own)), body, bearer=access)
    assert (answer.status, answer.headers["Set-Cookie"]) == (204, CLEARED)


async def test_the_end_of_another_session_leaves_it(kept: Doorstep) -> None:
    await logged_in(kept)
    (other,) = kept.shelf.logins
    answer = await kept.ask("POST", "/v1/auth/login", {"email": EMAIL, "password": PASSWORD})
    ended = await kept.ask("DELETE", f"/v1/sessions/{other}", bearer=answer.json["access_token"])
    assert ended.status == 204
    assert "Set-Cookie" not in ended.headers


async def test_where_there_are_no_cookies_one_is_ignored(door: Doorstep) -> None:
    door.member()
    opened = await door.login()
    answer = await refresh(door, f"{NAME}={opened['refresh_token']}")
    assert answer.problem(422, "ValidationError")["errors"][0]["field"] == "refresh_token"
    given = await refresh(door, "a=1", body={"refresh_token": opened["refresh_token"]}, Origin="https://evil.example")
    assert given.status == 200
    ended = await door.ask("POST", "/v1/auth/logout", bearer=opened["access_token"])
    assert "Set-Cookie" not in ended.headers


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://id.example.org", "https://id.example.org"),
        ("https://ID.Example.org:443/", "https://id.example.org"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("http://[::1]:8000/x", "http://[::1]:8000"),
    ],
)
def test_origins_are_written_as_browsers_do(url: str, origin: str) -> None:
    assert Cookies.of(url).origin == origin
    assert not Cookies.of(url).foreign(Headers([("Origin", origin), ("Sec-Fetch-Site", "none")]))
