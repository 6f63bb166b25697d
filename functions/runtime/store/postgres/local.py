"""A private PostgreSQL server from this machine's own binaries, for tests and development.

It listens on a socket in a folder that only its user can enter, and on no port, so it needs no passwords. PostgreSQL
refuses to run as root; for root it runs as the user `postgres` or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from functions.runtime.store.port import NotAvailable

ADMIN: Final = "postgres"
_DATABASE: Final = "shop"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_LONGEST: Final = 80  # characters of the socket's folder; the path of a Unix socket is limited to about 100
_INSTALLED: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
# Without fsync, data in the page cache are lost if the machine fails, but not if only the server process is killed.
_FAST: Final = ("fsync=off", "full_page_writes=off")


def binary(name: str) -> str:
    """Return the path of one of PostgreSQL's programs, of the newest version. Raises NotAvailable."""
    folders = [path for pattern in _INSTALLED for path in Path("/").glob(pattern.lstrip("/"))]
    for folder in sorted(folders, key=lambda path: [int(it) for it in re.findall(r"\d+", str(path))], reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise NotAvailable(f"PostgreSQL is not installed here: there is no `{name}`")
    return found


class Urls(NamedTuple):
    """The URLs (STORE_URL) for the domains and for the administrator."""

    domains: str
    admin: str

    @staticmethod
    def path(folder: Path) -> Path:
        """Return the file that contains the URLs of the server in `folder` while it runs."""
        return folder / "urls"

    @classmethod
    def read(cls, folder: Path) -> Urls | None:
        """Return the URLs of the server in `folder`, or None if it does not run."""
        try:
            domains, admin = cls.path(folder).read_text().split()
        except (OSError, ValueError):
            return None
        return cls(domains, admin)


class PostgresServer:
    """Context manager that runs a server with its data in `folder`, or in a new folder that is removed at the end.

    `urls` are the URLs of its database. A server that is not `durable` may lose data if the machine fails. `settings`
    are further settings, as `name=value`; `port` is also in the socket's name.
    """

    def __init__(
        self, folder: Path | None = None, *, durable: bool = False, port: int = 5432, settings: Sequence[str] = ()
    ) -> None:
        self._given = folder
        self._port = port
        self._settings = [*(() if durable else _FAST), f"port={port}", *settings]
        self._user = _user()

    def __enter__(self) -> PostgresServer:
        binary("postgres")
        self.folder = self._given or self._new_folder()
        self.sockets = self.folder if len(str(self.folder)) <= _LONGEST else self._new_folder()
        domains, admin = (f"postgresql://{user}/{_DATABASE}?host={self.sockets}" for user in ("", f"{ADMIN}@"))
        self.urls = Urls(domains, admin)
        try:
            self._initialize()
            self.start()
            if not (self.folder / "shop").exists():
                self._run(binary("createdb"), "-h", str(self.sockets), "-U", ADMIN, _DATABASE)
                (self.folder / "shop").touch()
            Urls.path(self.folder).write_text("\n".join(self.urls))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "process"):
            self.stop()
        Urls.path(self.folder).unlink(missing_ok=True)
        if self.sockets != self.folder:
            shutil.rmtree(self.sockets, ignore_errors=True)
        if self._given is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, also after `stop` or `kill`, and wait until it answers. Raises NotAvailable."""
        settings = ["listen_addresses=", f"unix_socket_directories={self.sockets}", *self._settings]
        words = [binary("postgres"), "-D", str(self.folder / "data")]
        for setting in settings:
            words += ["-c", setting]
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [*_as(self._user), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._call(binary("pg_isready"), "-q", "-h", str(self.sockets), "-d", ADMIN).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise NotAvailable(f"PostgreSQL does not start: {' | '.join(_last_lines(log))}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server. SIGINT closes its connections; SIGQUIT simulates a crash."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def _initialize(self) -> None:
        data = self.folder / "data"
        if (data / "PG_VERSION").exists():
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        shutil.rmtree(data, ignore_errors=True)
        self._run(binary("initdb"), "-D", str(data), "-A", "trust", "-U", ADMIN, "-E", "UTF8", "--locale=C", "-N")

    def _new_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="shop-postgres-", dir="/tmp"))
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        return folder

    def _run(self, *words: str) -> None:
        done = self._call(*words)
        if done.returncode != 0:
            raise NotAvailable(f"PostgreSQL cannot be set up: {' | '.join(done.stderr.strip().splitlines()[-3:])}")

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own command
            [*_as(self._user), *words],
            env=os.environ | {"PGPORT": str(self._port)},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )


def _user() -> pwd.struct_passwd | None:
    """Return the user to run the server as, or None for the user of this process."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _as(user: pwd.struct_passwd | None) -> list[str]:
    if user is None:
        return []
    # Keep root's access to folders that other users cannot enter, such as those of tests.
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *rights]


def _last_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").strip().splitlines()[-3:]


def main() -> None:
    """Run a durable server with its data in a folder until SIGTERM.

    Usage: `python -m functions.runtime.store.postgres.local FOLDER`.
    """
    try:
        with PostgresServer(Path(sys.argv[1]).resolve(), durable=True) as server:
            signal.signal(signal.SIGTERM, lambda *_: os.kill(server.process.pid, signal.SIGINT))
            sys.exit(server.process.wait())
    except NotAvailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
