"""Register, activate, resend, and how it stands, as a client sees them."""

from tests.http.doorstep import EMAIL, PASSWORD, Doorstep

WHO = f"{EMAIL}:{PASSWORD}"


async def test_the_main_job() -> None:
    door = Doorstep()
    registered = await door.register()
    assert registered.status == 201
    assert registered.json.keys() == {"id", "email", "is_activated", "created_at", "resend_available_at", "message"}
    door.mint("0428")
    activated = await door.ask("POST", "/v1/users/activate", {"code": "04 28"}, who=WHO)
    assert activated.status == 200
    assert activated.json["is_activated"] is True
    again = await door.ask("POST", "/v1/users/activate", {"code": "0428"}, who=WHO)
    again.problem(409, "UserAlreadyActivated")
