"""DynamoDB Local, Amazon's emulator of DynamoDB, for tests and development.

`mvn` downloads DynamoDB Local once from Maven Central (com.amazonaws:DynamoDBLocal) into the user's cache. Running it
needs `java`.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from functions.runtime.store.port import NotAvailable

VERSION: Final = "2.5.2"
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
"""DynamoDB Local demands credentials, and accepts any."""

_POM = f"""<project><modelVersion>4.0.0</modelVersion>
<groupId>shop</groupId><artifactId>dynamodb-local</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>com.amazonaws</groupId><artifactId>DynamoDBLocal</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>
"""
_QUIET = {"DDB_LOCAL_TELEMETRY": "0"}
_MAIN = "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"
_INSTALL_SECONDS = 600
_START_SECONDS = 60


def install() -> Path:
    """Return the folder with the libraries, and download them if they are missing. Raises NotAvailable."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shop-platform"
    folder = cache / f"dynamodb-local-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not folder.is_dir():
            _fetch(folder)
    return folder


def command(port: int, data: Path | None = None) -> list[str]:
    """Return the command that starts DynamoDB Local on `port`, with its data in the folder `data` or in memory.

    Raises NotAvailable.
    """
    java = shutil.which("java")
    if java is None:
        raise NotAvailable("DynamoDB Local needs Java 11 or newer, and there is no `java` here")
    folder = install()
    where = ["-dbPath", str(data)] if data else ["-inMemory"]
    return [
        java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        f"-Djava.library.path={folder}", "-cp", f"{folder}/*", _MAIN,
        "-port", str(port), "-sharedDb", "-disableTelemetry", *where,
    ]  # fmt: skip


class DynamoDBLocal:
    """Context manager that runs an in-memory DynamoDB Local at `url`."""

    def __enter__(self) -> DynamoDBLocal:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command(port), stdout=self._log, stderr=subprocess.STDOUT, env={**os.environ, **_QUIET}
            )
        except BaseException:
            self._log.close()
            raise
        try:
            self._wait(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                words = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
                raise NotAvailable("DynamoDB Local does not start: " + " | ".join(words))
            time.sleep(0.05)


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NotAvailable("DynamoDB Local is fetched by Maven, and there is no `mvn` here")
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        pom = Path(work, "pom.xml")
        pom.write_text(_POM)
        target = Path(work, "libraries")
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                [maven, "-q", "-B", "-f", str(pom), *goal],
                capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise NotAvailable("DynamoDB Local could not be fetched: Maven took too long") from None
        if done.returncode != 0 or not list(target.glob("DynamoDBLocal-*.jar")):
            raise NotAvailable("DynamoDB Local could not be fetched: Maven failed (is there a network?)")
        target.rename(folder)


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether DynamoDB Local answers requests. Its port opens before the server can answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    """Run DynamoDB Local until it or this process ends.

    Usage: `python -m functions.runtime.store.dynamodb.local PORT [FOLDER]`.
    """
    data = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if data:
        data.mkdir(parents=True, exist_ok=True)
    try:
        words = command(int(sys.argv[1]), data)
    except NotAvailable as error:
        sys.exit(str(error))
    process = subprocess.Popen(words, env={**os.environ, **_QUIET})  # noqa: S603 - our own command
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
