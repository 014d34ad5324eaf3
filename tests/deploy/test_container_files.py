"""The compose file and the Dockerfile, as far as a machine without a container engine can tell."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import Settings, read_settings
from tests.nginx_server import CONFIGURATION

ROOT = CONFIGURATION.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((CONFIGURATION / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (CONFIGURATION / "Dockerfile").read_text()
GATEWAYS = ("gateway-a", "gateway-b")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert int(service["user"].split(":")[0]) > 0
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_and_named_with_its_version(name: str) -> None:
    service = SERVICES[name]

    assert ("healthcheck" in service) != (name in GATEWAYS)  # a gateway's is in its image
    image, _, tag = service["image"].partition(":")
    assert image == "penstock" or re.match(r"\d", tag)


def test_only_nginx_is_reached_from_outside_and_reaches_it() -> None:
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name, service in SERVICES.items():
        is_nginx = name == "nginx"
        assert ("ports" in service) == is_nginx
        assert ("outside" in service["networks"]) == is_nginx
        assert "inside" in service["networks"]


def test_secrets_are_files_that_the_script_makes_and_no_variables(tmp_path: Path) -> None:
    script = shutil.copy(CONFIGURATION / "make-secrets.sh", tmp_path)
    for _ in range(2):
        made = subprocess.run(
            [script, "api.example.com"], capture_output=True, text=True, timeout=60
        )
        assert made.returncode == 0, made.stderr
    folder = tmp_path / "secrets"
    pepper = (folder / "pepper").read_text()

    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    wanted |= set(re.findall(r"\./secrets/([\w.]+):", (CONFIGURATION / "compose.yaml").read_text()))
    assert wanted == {path.name for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o004 for path in folder.iterdir()), (
        "containers must read them"
    )
    # Run again, it keeps what is there.
    subprocess.run([script, "api.example.com"], capture_output=True, check=True, timeout=60)
    assert (folder / "pepper").read_text() == pepper
    assert (folder / "redis_password").read_text().strip() in (folder / "store_url").read_text()
    assert (folder / "postgres_password").read_text().strip() in (folder / "ledger_url").read_text()


def test_no_secret_is_in_the_compose_file() -> None:
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            is_secret = re.search("PASSWORD|PEPPER|SECRET|TOKEN|LEDGER|STORE", variable)
            assert not is_secret or str(value).startswith("/run/secrets/"), f"{name}: {variable}"


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateways_variables_are_settings_and_its_secrets_are_mounted(
    name: str, tmp_path: Path
) -> None:
    service = SERVICES[name]
    given = {**dict(re.findall(r"(PENSTOCK_\w+)=(\S+)", DOCKERFILE)), **service["environment"]}

    for variable, value in given.items():
        field = variable.removeprefix("PENSTOCK_").removesuffix("_FILE").lower()
        assert field in Settings.__struct_fields__
        if variable.endswith("_FILE"):
            assert Path(value).name in service["secrets"]
            (tmp_path / Path(value).name).write_text("x")
            given[variable] = str(tmp_path / Path(value).name)
    settings = read_settings(given)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds + 10


def test_every_file_that_is_mounted_is_there_or_made_by_the_script() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./secrets/"):
                continue
            if source.startswith("."):
                assert (CONFIGURATION / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_nginx_knows_the_gateways_of_the_compose_file() -> None:
    text = (CONFIGURATION / "gateways.compose.conf").read_text()

    assert set(re.findall(r"^server ([\w-]+):8080 .*resolve;$", text, re.M)) == set(GATEWAYS)


def test_the_image_is_built_in_two_stages_and_runs_as_nobody_special() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE, re.M)
    last = DOCKERFILE.rpartition("FROM ")[2]

    assert len(stages) == 2
    assert "build-essential" not in last
    assert re.search(r"^USER 10001:10001$", last, re.M)
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert "HEALTHCHECK" in last
    assert re.search(r"python:3\.\d+-slim-\w+", DOCKERFILE)
    assert "latest" not in DOCKERFILE


def test_everything_that_the_image_installs_is_constrained() -> None:
    installs = re.findall(r"pip install (?:.|\\\n)*?(?:\n(?! )|$)", DOCKERFILE)

    assert len(installs) == 2
    assert all("-c .ci/constraints.txt" in install for install in installs)
    assert "engines/gguf/build.py --python" in DOCKERFILE
    assert "CMAKE_ARGS=-DGGML_NATIVE=OFF" in DOCKERFILE


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = (CONFIGURATION / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}

    for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M):
        for source in words.split()[:-1]:
            assert (ROOT / source).exists()
            assert any(source == name or source.startswith(f"{name}/") for name in kept), source


UNIT = CONFIGURATION / "penstock@.service"


def test_the_units_variables_are_settings() -> None:
    variables = re.findall(r"^(?:# )?Environment=PENSTOCK_(\w+)=", UNIT.read_text(), re.M)

    assert {"PEPPER_FILE", "PORT"} <= set(variables)
    for variable in variables:
        assert variable.removesuffix("_FILE").lower() in Settings.__struct_fields__


def test_the_unit_waits_longer_than_a_drain_takes() -> None:
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)

    assert float(seconds) > Settings().drain_seconds + 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_takes_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    unit = tmp_path / "penstock@.service"
    # systemd looks whether the program is there, which it is not on the machine of a test.
    unit.write_text(UNIT.read_text().replace("/opt/penstock/.venv/bin/penstock", "/bin/true"))

    verified = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "SYSTEMD_COLORS": "0"},
    )  # fmt: skip

    assert (verified.returncode, verified.stderr) == (0, "")
    assert rated.returncode == 0, rated.stdout[-300:]
