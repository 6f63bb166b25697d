import pytest

from functions.runtime.settings import RuntimeSettings, SettingsError, load


class Settings(RuntimeSettings, frozen=True, kw_only=True):
    page_size: int = 20


def test_a_field_is_read_from_the_variable_of_its_name() -> None:
    settings = load(Settings, {"PAGE_SIZE": "7", "GRPC_PORT": "9082", "UNRELATED": "x"})

    assert (settings.page_size, settings.grpc_port, settings.role) == (7, 9082, "all")


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(Settings, {"PAGE_SIZE": "", "PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PAGE_SIZE", "many"), ("GRPC_PORT", "70000"), ("SHOP_ENV", "prod"), ("ROLE", "x")],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as failure:
        load(Settings, {variable: value})

    assert str(failure.value).startswith(f"{variable}: ")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().page_size = 3  # type: ignore[misc]  # that is what is tested
