from pathlib import Path

import pytest

from gateway.settings import SettingsInvalid, read_settings, shipped_policy


def test_without_variables_everything_is_under_the_data_directory(tmp_path: Path) -> None:
    settings = read_settings({"XDG_DATA_HOME": str(tmp_path)})

    assert settings.data_dir == tmp_path / "penstock"
    assert settings.models_dir == tmp_path / "penstock" / "models"
    assert settings.ledger_url == f"sqlite+aiosqlite:///{tmp_path}/penstock/ledger.db"


def test_each_field_has_its_variable() -> None:
    settings = read_settings(
        {
            "PENSTOCK_PORT": "9000",
            "PENSTOCK_POLICY": "/etc/penstock",
            "PENSTOCK_LOG_FORMAT": "json",
            "PENSTOCK_DRAIN_SECONDS": "1.5",
            "PENSTOCK_LEDGER": "postgresql+asyncpg://db/penstock",
        }
    )

    assert settings.port == 9000
    assert settings.policy == Path("/etc/penstock")
    assert settings.log_format == "json"
    assert settings.drain_seconds == 1.5
    assert settings.ledger_url == "postgresql+asyncpg://db/penstock"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PENSTOCK_PORT", "many"), ("PENSTOCK_LOG_LEVEL", "loud"), ("PENSTOCK_MAX_BODY_BYTES", "1e")],
)
def test_a_value_that_cannot_be_names_the_variable_and_the_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"{variable}='{value}'"):
        read_settings({variable: value})


def test_trusted_proxies_are_networks_with_commas_or_space_between() -> None:
    settings = read_settings({"PENSTOCK_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.7  unix"})

    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.7", "unix")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("10.0.0.7/8", "write 10.0.0.0/8"),
        ("nginx", "is not a network"),
        ("*", "name the proxies"),
        ("0.0.0.0/0", "name the proxies"),
        ("::/0", "name the proxies"),
        ("!10.0.0.0/8", "name the proxies"),
    ],
)
def test_a_proxy_that_cannot_be_trusted_is_named(value: str, problem: str) -> None:
    with pytest.raises(SettingsInvalid, match=problem) as error:
        read_settings({"PENSTOCK_TRUSTED_PROXIES": value})

    assert "PENSTOCK_TRUSTED_PROXIES" in str(error.value)


def test_admin_endpoints_have_a_listener_of_their_own_if_a_port_is_given() -> None:
    assert read_settings({}).admin_port is None
    settings = read_settings({"PENSTOCK_ADMIN_PORT": "9090"})
    assert (settings.admin_host, settings.admin_port) == ("127.0.0.1", 9090)


def test_the_shipped_policy_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert (shipped_policy("dev") / "gateway.toml").is_file()
    assert (shipped_policy("prod") / "gateway.toml").is_file()


def test_a_policy_directory_of_ones_own_comes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policies" / "dev").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert shipped_policy("dev") == Path("policies/dev")


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text("canary\n")

    settings = read_settings({"PENSTOCK_PEPPER_FILE": str(tmp_path / "pepper")})

    assert settings.pepper == "canary"


def test_a_value_and_a_file_for_it_are_one_too_many(tmp_path: Path) -> None:
    environ = {"PENSTOCK_PEPPER": "a", "PENSTOCK_PEPPER_FILE": str(tmp_path / "pepper")}

    with pytest.raises(SettingsInvalid, match="PENSTOCK_PEPPER_FILE are both set"):
        read_settings(environ)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"PENSTOCK_LEDGER_FILE=.*nowhere"):
        read_settings({"PENSTOCK_LEDGER_FILE": str(tmp_path / "nowhere")})
