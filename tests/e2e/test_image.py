"""The image's own steps, taken in a fresh folder by whoever runs the tests: no engine for containers is needed.

What takes root (packages, the user) is left out, and nothing is fetched or compiled: the wheel is built of what the
image copies, and finds its dependencies where the tests have theirs. In the large form all is done as in the image.
"""

import fnmatch
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests import lines
from tests.service import READY_SECONDS, free_port

HERE: Final = Path(__file__).parents[2]
ROOTS_OWN: Final = ("apt-get ", "useradd ")  # what the commands begin with that only root can do
SOMEBODY: Final = "nobody"  # as good as the image's user, which is not there; initdb wants one that is
PLACES: Final = ("/opt/regsvc", "/src", "/var/lib/regsvc")
Step = tuple[str, str]


def steps() -> list[Step]:
    """Every instruction of the Dockerfile with its words, its lines joined."""
    text = (HERE / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file away from the image: the last of its rules that fits says."""
    found = False
    parts = path.split("/")
    for rule in (HERE / ".dockerignore").read_text("utf-8").split():
        pattern = rule.removeprefix("!")
        among = parts if pattern.startswith("**/") else parts[:1]
        if any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in among):
            found = not rule.startswith("!")
    return found


@dataclass
class Image:
    """What the steps made, below `root` instead of `/`."""

    root: Path
    extra: str  # words for pip
    said: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    left_out: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """The same words, of our places instead of the image's."""
        return re.sub("|".join(PLACES), lambda place: f"{self.root}{place[0]}", text)

    def build(self) -> None:
        for word, rest in steps():
            match word:
                case "WORKDIR":
                    self.workdir = self.here(rest)
                    Path(self.workdir).mkdir(parents=True, exist_ok=True)
                case "ARG":
                    name, _, value = rest.partition("=")
                    self.args[name] = value
                case "COPY" if not rest.startswith("--from="):
                    self._copy(rest.split())
                case "RUN" if rest.startswith(ROOTS_OWN):
                    self.left_out.append(rest)
                case "RUN":
                    self._run(rest)
                case _:
                    self.said[word] = rest

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        told = dict(item.split("=", 1) for item in self.here(self.said["ENV"]).split())
        return {name: value.replace("$PATH", path) for name, value in told.items()} | {"HOME": str(self.root)}

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        for source in sources:
            assert not ignored(source), f"{source} is copied, and .dockerignore keeps it away"
            to = Path(self.workdir, target, source if target == "./" else "")
            if (HERE / source).is_dir():
                shutil.copytree(HERE / source, to, ignore=self._skipped)
            else:
                shutil.copy(HERE / source, to)

    @staticmethod
    def _skipped(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(HERE)
        return {name for name in names if ignored(str(inside / name))}

    def _run(self, command: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        words = self.here(command) + (self.extra if " pip " in command else "")
        done = subprocess.run(
            ["/bin/sh", "-ec", words],
            cwd=self.workdir,
            env={**os.environ, **self.args, "PATH": path, "PYTHONWARNINGS": "default"}
            | ({"CC": "false"} if self.extra else {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        if " venv " in command and self.extra:
            [site] = (self.root / "opt" / "regsvc").glob("lib/python*/site-packages")
            (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))


@pytest.fixture
def image(rounds: int | None) -> Iterator[Image]:
    """The image, in a folder that its user may enter."""
    with tempfile.TemporaryDirectory(prefix="regsvc-image-") as folder:
        Path(folder).chmod(0o755)
        image = Image(
            Path(folder), "" if rounds else " --no-deps --no-compile --no-build-isolation --ignore-installed --no-index"
        )
        image.build()
        yield image


def prepared(data: Path) -> int:
    """Make the data folder as the image does; return who it belongs to: nobody where that can be, else ourselves."""
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    if os.geteuid() == 0 and _reaches(found := pwd.getpwnam(SOMEBODY)):
        os.chown(data, found.pw_uid, found.pw_gid)
    return data.stat().st_uid


def _reaches(who: pwd.struct_passwd) -> bool:
    """Whether a user can start this interpreter, which may lie in a folder that only root enters."""
    try:
        started = subprocess.run([sys.executable, "-c", ""], check=False, user=who.pw_uid, group=who.pw_gid, cwd="/")
    except PermissionError:
        return False
    return started.returncode == 0


@pytest.mark.timeout(180)  # a wheel is built, and the large form installs all that it needs
def test_what_the_image_is_made_of_serves_and_ends_as_a_container_does(image: Image) -> None:
    assert len(image.left_out) == 2
    assert not (image.root / "opt/regsvc/bin/pip").exists(), "what installs stays behind"
    data, port = image.root / "var/lib/regsvc", str(free_port())
    owner = prepared(data)
    environment = image.environment() | {"REGSVC_PORT": port}
    log = image.root / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["env", *json.loads(image.said["ENTRYPOINT"]), *json.loads(image.said["CMD"])],
            cwd=data,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
            user=owner,
            group=data.stat().st_gid,
        )
    try:
        ready(port, process, log)
        assert health(image, environment) == 0
        assert (data / "secret").stat().st_uid == owner
        process.send_signal(getattr(signal, image.said["STOPSIGNAL"]))
        assert process.wait(30) == 0
        assert health(image, environment) == 1
        assert lines.read_all(log.read_bytes())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ready(port: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def health(image: Image, environment: dict[str, str]) -> int:
    """What the health check ends with."""
    words = json.loads(image.said["HEALTHCHECK"].partition(" CMD ")[2])
    return subprocess.run(words, env=environment, capture_output=True, check=False).returncode
