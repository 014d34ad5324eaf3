"""What a gateway listens on: what its settings name, and nothing else, its children included."""

import shutil
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.settings import shipped_policy
from tests.gateway.cli.test_serve import served


def listening(pid: int) -> set[tuple[str, int]]:
    """Every address and port that a process or one of its children takes connections on."""
    gateway = psutil.Process(pid)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in (gateway, *gateway.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == 2  # SOCK_DGRAM
    }


def unix_sockets(pid: int) -> set[str]:
    """Every named Unix socket that it or a child has; a pair that it talks over has no name."""
    gateway = psutil.Process(pid)
    return {
        connection.laddr
        for process in (gateway, *gateway.children(recursive=True))
        for connection in process.net_connections(kind="unix")
        if connection.laddr
    }


@pytest.mark.parametrize("isolation", ["", 'isolation = "process"'])
def test_cve_2025_30165_only_what_the_settings_name_is_listened_on(
    tmp_path: Path, isolation: str
) -> None:
    policy = Path(shutil.copytree(shipped_policy("dev"), tmp_path / "policy"))
    engines = policy / "engines.toml"
    text = engines.read_text()
    assert 'kind = "gguf"' in text
    engines.write_text(text.replace('kind = "gguf"', f'kind = "gguf"\n{isolation}'))
    with served(tmp_path / "data", PENSTOCK_POLICY=str(policy)) as (process, url):
        say = {"model": "starter", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        answer = httpx.post(f"{url}/v1/chat/completions", json=say, timeout=60)
        found = listening(process.pid)
        named = unix_sockets(process.pid)
        num_children = len(psutil.Process(process.pid).children(recursive=True))
        process.terminate()

    assert answer.status_code == 200
    assert found == {("127.0.0.1", int(url.rpartition(":")[2]))}
    assert named == set()
    assert num_children == bool(isolation)
