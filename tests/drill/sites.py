"""What a drill does to a platform on this machine, and to one on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from functions.runtime.store.dynamodb.tables import definition
from functions.runtime.store.epochs import next_epoch
from functions.runtime.store.postgres.schema import schema_of
from knative.local import web
from tests.attack.cluster import PLATFORM, Cluster
from tests.e2e.platform import ROOT, LocalPlatform

_DELIVERY_SECONDS = 30.0
_DELETION_SECONDS = 900.0
_START_SECONDS = 600.0
_STORE, _LETTERS = ("postgres-0", "postgres"), ("dead-letters-0", "dead-letters")
_VOLUMES = "volumes"
"""The Secret whose id names the folders of the volumes. It is not restored, so that the new volumes are empty."""
_NEEDED_FIRST = (
    "Namespace",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "PersistentVolume",
    "ConfigMap",
    "Secret",
    "StatefulSet",
)
"""What is applied before the data is restored, with the Job that fills Secrets and the Services of Kubernetes."""
# Data and WAL are one image in the copy, and the running service goes on.
_COPY_LETTERS = """
import os, sqlite3, sys
source, copy = sqlite3.connect("/data/deadletters.db"), sqlite3.connect("/data/copy.db")
source.backup(copy)
copy.close()
sys.stdout.buffer.write(open("/data/copy.db", "rb").read())
os.unlink("/data/copy.db")
"""
_RESTORE_LETTERS = """
import os, sqlite3, sys
open("/data/copy.db", "wb").write(sys.stdin.buffer.read())
copy, target = sqlite3.connect("/data/copy.db"), sqlite3.connect("/data/deadletters.db", timeout=30)
copy.backup(target)
copy.close()
os.unlink("/data/copy.db")
"""
_PUBLISH = """
import json, os, sys, urllib.request
headers = json.load(sys.stdin)
urllib.request.urlopen(urllib.request.Request(os.environ["BROKER_URL"], b"{}", headers), timeout=60)
"""


class Site(Protocol):
    """A platform that can be backed up, destroyed and restored. `address` is its base URL and its host."""

    admin: tuple[str, str]

    @property
    def address(self) -> tuple[str, str]:
        """Return the gateway's URL, and the Host header or an empty string."""

    def start(self) -> None:
        """Start the platform, if it does not run."""

    def publish(self, headers: dict[str, str]) -> None:
        """Post an event with these headers and the data `{}` to the broker."""

    def backup(self) -> None:
        """Take a backup while the platform runs."""

    def destroy(self) -> None:
        """Destroy the platform with its data, without a chance to stop in order."""

    def restore(self) -> None:
        """Bring the platform up with the data of the backup."""

    def stop(self) -> None:
        """Stop what `start` started."""


class MachineSite:
    """`make up` with a store, `make backup` and `make restore`, in a folder."""

    def __init__(self, folder: Path, store: str) -> None:
        self._backup = folder / "backup"
        self._platform = LocalPlatform(folder / "platform", "--no-console", "--store", store, DATABASE_URL="")
        self.admin = self._platform.admin_email, self._platform.admin_password

    @property
    def address(self) -> tuple[str, str]:
        return self._platform.base_url, ""

    def start(self) -> None:
        self._platform.start()

    def publish(self, headers: dict[str, str]) -> None:
        url = f"{self._platform.state()['parts']['broker']['url']}/shop/default"
        status, _, body = web.request("POST", url, b"{}", headers)
        if status != 202:
            raise RuntimeError(f"the broker answered {status}: {body.decode(errors='replace')}")

    def backup(self) -> None:
        self._run("backup")

    def destroy(self) -> None:
        self._platform.destroy()

    def restore(self) -> None:
        self._run("restore")
        self._platform.start()

    def _run(self, command: str) -> None:
        """Run the command of `make backup` or `make restore`."""
        words = ("-m", "knative.local.backup", command, str(self._backup), "--data", str(self._platform.folder))
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        self._platform.stop()


class ClusterSite:
    """The platform of an overlay with a PostgreSQL and a broker of its own, such as overlays/dev."""

    def __init__(self, folder: Path, overlay: Path) -> None:
        self._folder = folder
        self._overlay = overlay
        self._cluster = Cluster()
        self.admin = "", ""

    @property
    def address(self) -> tuple[str, str]:
        return os.environ["E2E_BASE_URL"], os.environ["E2E_HOST"]

    def start(self) -> None:
        self._wait("ksvc", "--all")
        secret = self._cluster.secret("admin")
        self.admin = secret["email"], secret["password"]

    def publish(self, headers: dict[str, str]) -> None:
        self._python(_PUBLISH, json.dumps(headers).encode())

    def backup(self) -> None:
        """Take a dump of the stores, the dead letters, and the Secrets.

        An event that the broker has accepted and nobody has handled is in no dump. So for a while before the dump
        published events stay in the outbox too, from where they are published again after the restore.
        """
        with self.outbox_kept():
            time.sleep(_DELIVERY_SECONDS)
            self.save_data()
        saved = [
            self._cluster.get(kind, item["metadata"]["name"], "-n", PLATFORM)
            for item in rendered(self._overlay)
            if (kind := item["kind"]) == "Secret" or item["metadata"]["name"] == "service-keys"
            if item["metadata"]["name"] != _VOLUMES and item["metadata"].get("namespace") == PLATFORM
        ]
        (self._folder / "secrets.json").write_text(json.dumps(saved))

    def destroy(self) -> None:
        words = ("delete", "-k", str(self._overlay), "--ignore-not-found", "--wait")
        self._kubectl(*words, seconds=_DELETION_SECONDS)

    def restore(self) -> None:
        """Start the store and the dead letters, restore their data in a new epoch, then start everything."""
        objects = rendered(self._overlay)
        self._apply([item for item in objects if item["kind"] == "Namespace"])
        self._cluster.kubectl("create", "-f", "-", given=_list(self._saved()))
        self._apply([item for item in objects if is_needed_first(item)])
        for pod, _ in (_STORE, _LETTERS):
            self._wait(f"statefulset/{pod.removesuffix('-0')}", condition="jsonpath={.status.readyReplicas}=1")
        self.restore_data()
        self._cluster.kubectl("delete", "pod", _LETTERS[0], "-n", PLATFORM)
        self._apply(objects)

    def stop(self) -> None:
        pass

    def save_data(self) -> None:
        """Copy the stores' schemas and the dead letters into the folder."""
        schemas = " ".join(f"-n {schema}" for schema in _schemas())
        (self._folder / "postgres.dump").write_bytes(self._postgres(f"pg_dump -Fc -Z1 {schemas}"))
        (self._folder / "deadletters.db").write_bytes(self._python(_COPY_LETTERS))

    def restore_data(self) -> None:
        """Restore them into an empty database and over the dead letters, in a new epoch."""
        dump = (self._folder / "postgres.dump").read_bytes()
        # Rights are those of roles that do not exist yet: the Job `migrate` grants them.
        self._postgres("pg_restore --no-owner --no-privileges --exit-on-error --single-transaction", dump)
        for schema in _schemas():
            self._sql(f"DROP FUNCTION IF EXISTS {schema}.keep_published CASCADE")
            last = int(self._sql(f"SELECT epoch FROM {schema}.store"))  # noqa: S608 - our own name
            self._sql(f"UPDATE {schema}.store SET epoch = {next_epoch(last, datetime.now(UTC))}")  # noqa: S608 - as above
        self._python(_RESTORE_LETTERS, (self._folder / "deadletters.db").read_bytes())

    @contextmanager
    def outbox_kept(self) -> Iterator[None]:
        """Context manager during which no row leaves an outbox; the sweeps publish and remove what is left."""
        for schema in _schemas():
            self._sql(
                f"CREATE OR REPLACE FUNCTION {schema}.keep_published() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN RETURN NULL; END'; "
                f"CREATE OR REPLACE TRIGGER keep_published BEFORE DELETE ON {schema}.outbox FOR EACH ROW "
                f"EXECUTE FUNCTION {schema}.keep_published()"
            )
        try:
            yield
        finally:
            for schema in _schemas():
                self._sql(f"DROP FUNCTION {schema}.keep_published CASCADE")

    def _saved(self) -> list[dict[str, Any]]:
        """Return the saved objects without what the API server has written into them."""
        saved: list[dict[str, Any]] = json.loads((self._folder / "secrets.json").read_text())
        for item in saved:
            metadata = item["metadata"]
            item["metadata"] = {name: metadata[name] for name in ("name", "namespace", "labels") if name in metadata}
        return saved

    def _apply(self, objects: Sequence[dict[str, Any]]) -> None:
        self._kubectl("apply", "-f", "-", given=_list(objects).encode(), seconds=_START_SECONDS)

    def _wait(self, *what: str, condition: str = "condition=Ready") -> None:
        words = ("wait", "-n", PLATFORM, *what, f"--for={condition}", f"--timeout={_START_SECONDS:.0f}s")
        self._kubectl(*words, seconds=_START_SECONDS)

    def _sql(self, statements: str) -> str:
        return self._postgres("psql -qAt -v ON_ERROR_STOP=1 -f -", statements.encode()).decode().strip()

    def _postgres(self, command: str, given: bytes = b"") -> bytes:
        """Run one of PostgreSQL's programs in the server's pod, as the database's owner; return its output."""
        script = f'PGPASSWORD="$POSTGRES_PASSWORD" {command} -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB"'
        return self.in_pod(*_STORE, "sh", "-c", script, given=given)

    def _python(self, script: str, given: bytes = b"") -> bytes:
        """Run a script in the pod of the dead letters; return its output."""
        return self.in_pod(*_LETTERS, "python3", "-c", script, given=given)

    def in_pod(self, pod: str, container: str, *words: str, given: bytes) -> bytes:
        """Run a command in a container; return its output."""
        return self._kubectl("exec", "-i", "-n", PLATFORM, pod, "-c", container, "--", *words, given=given)

    def _kubectl(self, *words: str, given: bytes = b"", seconds: float = _START_SECONDS) -> bytes:
        done = subprocess.run(["kubectl", *words], input=given, capture_output=True, timeout=seconds + 30, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words[:8])}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout


def rendered(overlay: Path) -> list[dict[str, Any]]:
    """Return the objects of an overlay, in the order in which kustomize creates them."""
    words = ["kubectl", "kustomize", str(overlay)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def is_needed_first(item: dict[str, Any]) -> bool:
    """Return whether an object is applied before the data is restored; what uses the data is applied after that."""
    kind, name = item["kind"], item["metadata"]["name"]
    if kind == "Job":
        return bool(name == "secrets")
    if kind == "Service":
        return bool(item["apiVersion"] == "v1")
    return kind in _NEEDED_FIRST


def _schemas() -> list[str]:
    return [schema_of(store) for store in definition()[0]]


def _list(objects: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
