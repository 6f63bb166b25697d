"""What a first start that was cut short leaves for the next one."""

from pathlib import Path

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


def test_no_password_is_left_when_a_start_is_done(tmp_path: Path) -> None:
    data = Data(tmp_path)
    data.prepare()
    password = data.first_password()
    data.mark_first_start_done()
    assert not Data(tmp_path).is_first_start
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and password in path.read_text()]
