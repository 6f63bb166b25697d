"""What a first start that was cut short leaves for the next one."""

from pathlib import Path

from events.service_keys import PrivateKey, ServiceKeys
from knative.local.data import Data


def test_a_first_start_that_was_cut_short_goes_on_with_the_same_password(tmp_path: Path) -> None:
    first = Data(tmp_path)
    first.prepare()
    password = first.first_password()
    again = Data(tmp_path)
    again.prepare()
    assert again.first_password() == password
    assert Data(tmp_path, "dynamodb").first_password() != password
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}


def test_a_folder_of_an_earlier_release_gets_a_key_for_each_service_instead_of_one_for_all(
    tmp_path: Path,
) -> None:
    old = tmp_path / "secrets" / "service.pem"
    old.parent.mkdir()
    old.write_text("-----BEGIN PRIVATE KEY-----")
    Data(tmp_path).prepare(["orders", "users"])
    made = {name: key_of(tmp_path, name) for name in ("orders", "users")}
    known = ServiceKeys.parse((tmp_path / "secrets" / "service-keys" / "jwks.json").read_text())
    assert not old.exists()
    assert {known.get(key.key_id).service for key in made.values()} == {"orders", "users"}  # type: ignore[union-attr] # then it fails
    Data(tmp_path).prepare(["orders", "users", "carts"])
    assert key_of(tmp_path, "orders").seed == made["orders"].seed
    assert len({key_of(tmp_path, name).seed for name in ("orders", "users", "carts")}) == 3


def key_of(folder: Path, name: str) -> PrivateKey:
    file = folder / "secrets" / f"service-key-{name}" / "service.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    return PrivateKey.from_pem(name, file.read_text())


def test_no_password_is_left_when_a_start_is_done(tmp_path: Path) -> None:
    data = Data(tmp_path)
    data.prepare()
    password = data.first_password()
    data.mark_first_start_done()
    assert not Data(tmp_path).is_first_start
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and password in path.read_text()]
