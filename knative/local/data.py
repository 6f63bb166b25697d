"""The platform's data folder: lock, secrets, first-start marks, and platform.json, which lists the running parts."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final

from knative.setup.secrets import Folder, fill_keys

# Removed by --fresh. Only names that the platform creates, because the folder of --data may contain other files.
_OURS: Final = ("store", "dynamodb", "postgres", "broker", "logs", "secrets", "broker.yaml", "platform.json")
_MARKS: Final = "first-start*"
# Folders with password hashes, signing keys or addresses: other users of this machine must not read them.
_PRIVATE: Final = ("store", "broker", "logs", "secrets")


class DataInUse(RuntimeError):
    """Another platform uses this folder."""


class Data:
    """The data folder of one platform; only one process at a time can lock it."""

    def __init__(self, folder: Path, store: str = "sqlite") -> None:
        self.folder = folder.resolve()
        # Each kind of store has its own administrator and catalogue.
        self._mark = self.folder / ("first-start" if store == "sqlite" else f"first-start-{store}")
        self._password = self.folder / "secrets" / self._mark.name
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        """Return the folder of the logs, with one <part>.log for each part."""
        return self.folder / "logs"

    def hold(self) -> None:
        """Lock the folder until this process ends, even if it is killed. Raises DataInUse."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = self.running().get("pid", "unknown")
            raise DataInUse(
                f"Another instance runs on {self.folder} (pid {pid}).\n"
                f"Stop it (Ctrl-C there, or: make up ARGS=stop), or run another beside it:\n"
                f"make up ARGS='--data DIR --port-offset 100'"
            ) from None
        self._await_orphans()

    def empty(self) -> None:
        """Delete the data of earlier runs."""
        for path in [*(self.folder / name for name in _OURS), *self.folder.glob(_MARKS)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def prepare(self, services: Sequence[str] = ()) -> None:
        """Create the folders, and the missing key pairs of these services.

        Deletes the key that all services shared in earlier releases; its signatures are no longer accepted.
        """
        for name in _PRIVATE:
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name).chmod(0o700)
        secrets = self.folder / "secrets"
        fill_keys(Folder(secrets), services)
        (secrets / "service.pem").unlink(missing_ok=True)

    @property
    def is_first_start(self) -> bool:
        """Return whether no administrator has been created here yet."""
        return not self._mark.exists()

    def first_password(self) -> str:
        """Return the password for the first administrator.

        It stays the same until a start completes, because an interrupted start may have passed it to the users service.
        """
        if not self._password.exists():
            _write_private(self._password, token_urlsafe(15).encode())
        return self._password.read_text()

    def mark_first_start_done(self) -> None:
        """Mark the first start as complete, and delete the password."""
        self._mark.write_text("done\n")
        self._password.unlink(missing_ok=True)

    def publish(self, state: Mapping[str, Any]) -> None:
        """Write `state` to platform.json atomically."""
        path = self.folder / "platform.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(state, indent=2) + "\n")
        draft.replace(path)

    def withdraw(self) -> None:
        """Delete platform.json, because the platform no longer runs."""
        (self.folder / "platform.json").unlink(missing_ok=True)

    def running(self) -> dict[str, Any]:
        """Return platform.json, {} if there is none.

        It contains {pid, ready, base_url, parts: {name: {pid, url, grpc, ready, restarts, log}}}.
        """
        with suppress(OSError, ValueError):
            state = json.loads((self.folder / "platform.json").read_text())
            return state if isinstance(state, dict) else {}
        return {}

    def _await_orphans(self) -> None:
        """Wait for the parts of a killed runner to end: it takes seconds, and until then they occupy their ports."""
        pids = [part.get("pid") for part in self.running().get("parts", {}).values()]
        deadline = time.monotonic() + 7
        while any(is_part(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)


def is_part(pid: int | None) -> bool:
    """Return whether this process runs and is a part. Pids are reused, so check its command where /proc exists."""
    if not pid:
        return False
    with suppress(OSError):
        return b"knative.local.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    if Path("/proc/self").exists():
        return False
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def _write_private(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)
