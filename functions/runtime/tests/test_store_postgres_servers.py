"""Several servers over TLS: certificates are verified, and a standby that is promoted takes over."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from functions.runtime.clock import SystemClock
from functions.runtime.errors import Code, ServiceError
from functions.runtime.store.epochs import begin
from functions.runtime.store.port import NotAvailable
from functions.runtime.store.postgres.client import Connection, postgres_url
from functions.runtime.store.postgres.local import PostgresServer, binary
from functions.runtime.store.postgres.migrate import Settings, migrate
from functions.runtime.store.postgres.store import PostgresStore
from functions.runtime.tests.store_kinds import MAPPINGS, Counter, adding

_RULES = "local all all trust\nlocal replication all trust\nhostssl all all 127.0.0.1/32 trust\n"


class Pair(NamedTuple):
    """A server and its standby, which take connections by TLS only, and the file of their CA's certificate."""

    primary: PostgresServer
    standby: PostgresServer
    ports: tuple[int, int]
    authority: Path

    def url(self, *ports: int, user: str = "", authority: Path | None = None, host: str = "127.0.0.1") -> str:
        """Return STORE_URL for the servers at these ports, in this order."""
        hosts = ",".join(f"{host}:{port}" for port in ports)
        tls = f"sslmode=verify-full&sslrootcert={authority or self.authority}"
        return f"postgresql://{user}{hosts}/shop?{tls}&target_session_attrs=read-write"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    make_certificates(tmp_path)
    (tmp_path / "rules").write_text(_RULES)
    ports = _free_port(), _free_port()

    def server(port: int, folder: Path | None = None) -> PostgresServer:
        tls = ("ssl=on", f"ssl_cert_file={tmp_path}/server.crt", f"ssl_key_file={tmp_path}/server.key")
        listens = ("listen_addresses=127.0.0.1", f"hba_file={tmp_path}/rules")
        return PostgresServer(folder, port=port, settings=(*tls, *listens))

    try:
        with server(ports[0]) as primary:
            copy = primary.folder / "standby"
            words = [binary("pg_basebackup"), "-h", str(primary.sockets), "-p", str(ports[0]), "-U", "postgres"]
            subprocess.run([*words, "-D", str(copy / "data"), "-R", "-c", "fast"], check=True)
            (copy / "shop").touch()  # the database is in the copy
            owner = primary.folder.stat()
            for path in (copy, *copy.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid)
            with server(ports[1], copy) as standby:
                yield Pair(primary, standby, ports, tmp_path / "ca.crt")
            shutil.rmtree(copy)
    except NotAvailable as missing:
        pytest.skip(str(missing))


def make_certificates(folder: Path) -> None:
    """Write the certificate of a new authority, and one that it signs for 127.0.0.1, with its key."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("CA", "server"))
    number = x509.random_serial_number
    own = x509.CertificateBuilder(issuer, issuer, authority.public_key(), number())
    own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    server = x509.CertificateBuilder(issuer, subject, key.public_key(), number())
    address = x509.IPAddress(ip_address("127.0.0.1"))
    server = server.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    now = datetime.now(UTC)
    for name, builder in (("ca", own), ("server", server)):
        valid = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        signed = valid.sign(authority, hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "server.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "server.key").chmod(0o600)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def opened(url: str, timeout: float = 60) -> PostgresStore:
    connection = Connection(postgres_url(url).url, "shop_test", lambda: None, timeout=timeout, first=0)
    return PostgresStore("test", MAPPINGS, SystemClock(), connection)


async def test_a_standby_that_is_promoted_takes_over_under_work_and_certificates_are_verified(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair.ports
    admin = pair.url(second, first, user="postgres@")
    await migrate(Settings(store_admin_url=admin, store_url=pair.url(second, first)), ["test"], lambda _: None)
    store = opened(pair.url(second, first))  # the standby is asked first, and refuses
    await store.update(Counter, "c", adding())
    connection = await asyncpg.connect(admin)
    tls = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'shop_test'"
    assert await connection.fetchval(tls) is True
    behind = "SELECT pg_current_wal_lsn() <> replay_lsn FROM pg_stat_replication"
    while await connection.fetchval(behind):  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(0.05)
    await connection.close()

    await asyncio.to_thread(pair.primary.stop, signal.SIGQUIT)
    working = [asyncio.create_task(store.update(Counter, "c", adding())) for _ in range(3)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in working), "a standby accepts no write"
    promoted = await asyncpg.connect(pair.url(second, user="postgres@").replace("read-write", "any"))
    assert await promoted.fetchval("SELECT pg_promote()")
    await promoted.close()
    await asyncio.gather(*working)
    assert await store.get(Counter, "c") == Counter("c", 4, version=4)
    before = await store.epoch()
    await store.close()

    (tmp_path / "another").mkdir()
    make_certificates(tmp_path / "another")
    untrusted = pair.url(second, authority=tmp_path / "another/ca.crt"), pair.url(second, host="localhost")
    for url in untrusted:
        stranger = opened(url, timeout=1)
        with pytest.raises(ServiceError) as caught:
            await stranger.get(Counter, "c")
        assert caught.value.code is Code.UNAVAILABLE
        await stranger.close()

    monkeypatch.setenv("STORE_ADMIN_URL", admin)
    monkeypatch.setattr("functions.runtime.store.dynamodb.tables.definition", lambda: (["test"], {}))
    epochs = await asyncio.to_thread(begin, pair.url(second, first))
    assert epochs["test"] > before
