"""What several lines of the table have in common."""

from typing import Final

from regsvc.http import kinds

ID: Final = "01939d6e-77c8-7d2b-9a53-2f6f1c1b4c0e"
NOON: Final = "2026-11-20T11:00:00.123Z"
LATER: Final = "2026-11-20T11:00:30.123Z"
NAME: Final = {"type": "string"}
ANY_BODY: Final = (
    kinds.MALFORMED_REQUEST,
    kinds.REQUEST_TIMEOUT,
    kinds.PAYLOAD_TOO_LARGE,
    kinds.UNSUPPORTED_MEDIA_TYPE,
    kinds.VALIDATION_ERROR,
)
BUSY: Final = (kinds.OVERLOADED, kinds.SERVICE_UNAVAILABLE)  # of a route that hashes a password
PROFILE: Final = {
    "id": ID,
    "email": "alice@example.com",
    "username": "alice",
    "locale": "en",
    "role": "user",
    "created_at": NOON,
    "activated_at": LATER,
    "updated_at": LATER,
}
