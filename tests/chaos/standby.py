"""Two PostgreSQL servers on this machine, one the synchronous standby of the other, which may take its place.

They listen on loopback ports, as servers on two machines would. Started from the main thread, like the embedded one.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from asyncpg import PostgresError

from regsvc import trio_asyncpg
from regsvc.store.embedded.binaries import Binaries, find
from regsvc.store.embedded.cluster import CACHE
from regsvc.store.embedded.process import Kin, account_for
from tests.postgres import temporary_folder
from tests.service import free_port
from tests.waiting import until, until_asked

NAME: Final = "regsvc"
PATIENCE: Final = 60.0  # seconds for a program of PostgreSQL's, on a busy machine
SYNCHRONOUS: Final = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'"


@dataclass(eq=False)
class Node:
    """A server; its data is thrown away when it becomes the copy of another."""

    folder: Path
    binaries: Binaries
    kin: Kin
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://{NAME}@127.0.0.1:{self.port}/{NAME}?sslmode=disable"

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    async def make(self) -> None:
        """Make a new cluster with the database in it."""
        self._empty()
        await self._run("initdb", f"--username={NAME}", "--auth=trust", "--encoding=UTF8", "--locale=C")
        await self.start()
        async with trio_asyncpg.open_connection(self.dsn.replace(f"/{NAME}?", "/postgres?")) as connection:
            await connection.execute(f"CREATE DATABASE {NAME}")

    async def follow(self, primary: "Node") -> None:
        """Become the synchronous standby of another; returns when its commits wait for this one."""
        self._empty()
        way = f"host=127.0.0.1 port={primary.port} user={NAME} sslmode=disable"
        await self._run("pg_basebackup", f"--dbname={way}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        await self.start()
        # After the copy was made: the copy itself, once it is promoted, waits for nobody.
        async with trio_asyncpg.open_connection(primary.dsn) as connection:
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await connection.execute("SELECT pg_reload_conf()")
            await until_asked(lambda: connection.fetchval(SYNCHRONOUS), PATIENCE)

    async def start(self) -> None:
        """Start it; returns when it answers."""
        words = ("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}", "-c", "unix_socket_directories=")
        self.process = self._spawn("postgres", *words)
        await until_asked(self._answers, PATIENCE)

    async def promote(self) -> None:
        """Take the place of the primary, which is gone."""
        async with trio_asyncpg.open_connection(self.dsn) as connection:
            assert await connection.fetchval("SELECT pg_promote(true, 30)")

    def kill(self) -> None:
        """Have all of it gone, as if its machine were."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.kin.clear()

    def _empty(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(mode=0o700)
        if self.kin.account is not None:
            os.chown(self.folder, self.kin.account.uid, self.kin.account.gid)

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        with suppress(OSError, PostgresError):
            async with trio_asyncpg.open_connection(self.dsn.replace(f"/{NAME}?", "/postgres?")):
                return True
        return False

    async def _run(self, program: str, *words: str) -> None:
        process = self._spawn(program, *words, data=program == "pg_basebackup")
        await until(lambda: process.poll() is not None, PATIENCE)
        self.kin.clear()
        assert process.returncode == 0, self.log.read_text()[-2000:]

    def _spawn(self, program: str, *words: str, data: bool = False) -> subprocess.Popen[bytes]:
        command: list[str | Path] = [self.binaries.folder / program, *words]
        if data:  # it does not read PGDATA
            command = ["/bin/sh", "-c", 'exec "$@" --pgdata="$PGDATA"', "sh", *command]
        with self.log.open("ab") as log:
            return self.kin.spawn(
                command, on=self.folder, last_wish=signal.SIGQUIT, stdin=subprocess.DEVNULL, output=log
            )


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Node, Node]]:
    """A primary and its synchronous standby, both gone at the end of the block."""
    with temporary_folder("regsvc-pair-") as place:
        account = account_for(place / "none")
        binaries = find(None, major=None, account=account, cache=CACHE)
        nodes = [Node(place / name, binaries, Kin(place / f"{name}.alive", account)) for name in ("one", "two")]
        try:
            await nodes[0].make()
            await nodes[1].follow(nodes[0])
            yield nodes[0], nodes[1]
        finally:
            for node in nodes:
                node.kill()
