"""The README's tour: its commands run against a real service, and what they answer.

`python -m tests.tour` writes the README's block anew; a test runs the block as it stands and compares.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.service import running

README: Final = Path(__file__).parent.parent / "README.md"
BLOCK: Final = re.compile(r"(?s)(<!-- tour -->\n)(.*?)(<!-- /tour -->)")
PORT: Final = "localhost:8000"
JSON: Final = "-H 'Content-Type: application/json'"
WHO: Final = "-u 'ada@example.org:analytical engine'"
COMMANDS: Final = (
    f"""curl -s {PORT}/v1/users/register {JSON} -d '{{"email":"ada@example.org","password":"analytical engine"}}'""",
    f"CODE=$(curl -s {PORT}/api/v2/messages | grep -oE 'n[0-9]{{4}}.r' | head -c5 | tr -dc 0-9); echo $CODE",
    f"""curl -s {WHO} {PORT}/v1/users/activate {JSON} -d '{{"code":"'$CODE'"}}'""",
    f"""curl -s {WHO} {PORT}/v1/users/activate {JSON} -d '{{"code":"'$CODE'"}}'""",
    f"""curl -s {PORT}/v1/health""",
)
CHANGING: Final = (
    (r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
    (r"\b[0-9a-f]{32}\b", "REQUEST"),
    (r"(?m)^\d{4}$", "CODE"),
    (r"localhost:\d+|127\.0\.0\.1:\d+", "HOST"),
)


def take(commands: tuple[str, ...], port: int) -> list[str]:
    """Run the commands in one shell against a service on `port`; return what each printed."""
    mark = "----8<----"
    wait_for_mail = f"until curl -s {PORT}/api/v2/messages | grep -q '\"total\":[1-9]'; do sleep 0.05; done"
    lines = [
        f"{command}; echo; echo '{mark}'" + (f"; {wait_for_mail}" if not at else "")
        for at, command in enumerate(commands)
    ]
    script = "\n".join(lines).replace(PORT, f"localhost:{port}")
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return [part.strip() for part in ran.stdout.split(mark)[:-1]]


def same(one: str, other: str) -> bool:
    """Tell whether two answers differ only in what differs each time: ids, times, the code, the port."""
    for pattern, name in CHANGING:
        one, other = re.sub(pattern, name, one), re.sub(pattern, name, other)
    return one == other


def shown() -> tuple[tuple[str, ...], list[str]]:
    """Return the README's commands and the answers it shows."""
    found = BLOCK.search(README.read_text("utf-8"))
    assert found is not None
    commands: list[str] = []
    answers: list[str] = []
    for line in found[2].strip().splitlines()[1:-1]:
        if line.startswith("$ "):
            commands.append(line[2:])
            answers.append("")
        else:
            answers[-1] = f"{answers[-1]}\n{line}".strip()
    return tuple(commands), answers


def main() -> None:
    """Run the tour and write what it printed into the README."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), ENABLE_RATE_LIMITING="true") as service:
        answers = take(COMMANDS, service.port)
        text = "\n".join(f"$ {command}\n{answer}" for command, answer in zip(COMMANDS, answers, strict=True))
        text = text.replace(f"127.0.0.1:{service.port}", "127.0.0.1:8000")
    block = f"```console\n{text}\n```\n"
    readme = README.read_text("utf-8")
    README.write_text(BLOCK.sub(lambda found: found[1] + block + found[3], readme), "utf-8")


if __name__ == "__main__":
    main()
