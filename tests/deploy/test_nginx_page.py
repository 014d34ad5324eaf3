"""docs/nginx.md is tried as written, in a folder that stands for the root of a machine."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from tests.nginx_server import CONFIGURATION, nginx_binary

ROOT = CONFIGURATION.parent.parent
PAGE = (ROOT / "docs" / "nginx.md").read_text()


def test_the_set_up_works_as_it_is_written(tmp_path: Path) -> None:
    script = re.findall(r"```sh\n(.*?)```", PAGE, re.S)[0]
    assert "apt-get install -y nginx-light" in script
    nginx_folder = machine(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = nginx_folder / "conf.d" / "penstock.conf"
    moved = script.replace("/etc/nginx", str(nginx_folder)) + (
        f"\nsed -i 's/listen 443/listen 127.0.0.1:{port}/; /::/d' {site}"
        f"\nsed -i 's|/var/log/nginx|{tmp_path}|' {site}"
        f"\nreal-nginx -t -q -c {nginx_folder}/nginx.conf"
    )

    done = subprocess.run(
        [shutil.which("bash") or "bash", "-eu", "-c", moved],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "server_name api.example.com;" in site.read_text()
    assert not (nginx_folder / "sites-enabled" / "default").exists()


def machine(folder: Path) -> Path:
    """A machine's nginx as Debian leaves it, and stand-ins for what would change the real one."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("apt-get", "systemctl", "nginx"):
        (programs / name).write_text("#!/bin/sh\nexit 0\n")
        (programs / name).chmod(0o755)
    (programs / "real-nginx").symlink_to(nginx_binary())
    nginx_folder = folder / "etc-nginx"
    for name in ("conf.d", "sites-enabled"):
        (nginx_folder / name).mkdir(parents=True)
    (nginx_folder / "sites-enabled" / "default").touch()
    (nginx_folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;"
        " include conf.d/*.conf; include sites-enabled/*; }\n"
    )
    return nginx_folder
