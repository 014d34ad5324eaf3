"""A real nginx for tests, with the configuration that is shipped and certificates of its own.

What is changed for a test is what a reader of docs/nginx.md changes: the name, the
port, and where files are. Nothing else of deploy/nginx/penstock.conf is touched.
"""

import datetime
import getpass
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CONFIGURATION = Path(__file__).parent.parent / "deploy" / "nginx"
START_SECONDS = 30.0
NAME = "localhost"


class NginxServer:
    """One nginx with its workers, in the foreground, in a folder of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"https://{NAME}:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tls(self) -> ssl.SSLContext:
        """What trusts this nginx; a new one each time, because httpx changes what it is given."""
        return ssl.create_default_context(cafile=str(self.folder / "penstock" / "tls.crt"))

    def start(self) -> None:
        """Start it, and return when it answers. Its own words are in the failure if it does not."""
        binary = nginx_binary()
        with (self.folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [binary, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")],
                stderr=errors,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {self.errors()}")
            time.sleep(0.01)

    def reload(self) -> None:
        """Have it read its configuration again; streams of old workers go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it with its workers."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)

    def log(self) -> str:
        """The access log so far."""
        path = self.folder / "penstock.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def errors(self) -> str:
        """The error log so far."""
        return "".join(
            (self.folder / n).read_text(errors="replace") for n in ("stderr", "error.log")
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


def nginx_binary() -> str:
    """Where nginx is; Debian's is not on an ordinary user's PATH."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert binary is not None, "nginx is not installed; `make test` installs it"
    return binary


@contextmanager
def nginx_server(
    gateways: Sequence[str], replace: Mapping[str, str] | None = None
) -> Iterator[NginxServer]:
    """A running nginx in front of the gateways at these addresses (`host:port`).

    `replace` changes more of the configuration; each text must be in it.
    """
    with TemporaryDirectory(prefix="penstock-nginx-") as name:
        folder = Path(name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        write_files(folder, port, gateways, replace or {})
        server = NginxServer(folder, port)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def write_files(
    folder: Path, port: int, gateways: Sequence[str], replace: Mapping[str, str]
) -> None:
    """Everything that this nginx reads, and the folders that it writes to."""
    (folder / "penstock").mkdir()
    write_certificate(folder / "penstock")
    lines = [f"server {gateway} max_fails=1 fail_timeout=5s;\n" for gateway in gateways]
    (folder / "penstock" / "gateways.conf").write_text("".join(lines))
    changes = {
        "    listen [::]:443 ssl http2 default_server;\n": "",
        "    listen [::]:443 ssl http2;\n": "",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "PENSTOCK.EXAMPLE.COM": NAME,
        "/var/log/nginx/penstock.log": str(folder / "penstock.log"),
        **replace,
    }
    text = (CONFIGURATION / "penstock.conf").read_text()
    for old, new in changes.items():
        assert old in text, f"penstock.conf has no {old!r} any more"
        text = text.replace(old, new)
    (folder / "penstock.conf").write_text(text)
    (folder / "error.log").touch()
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As root, workers become another user, who may not read this folder.
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 2;\nworker_shutdown_timeout 10s;\n"
        f"pid {folder}/pid;\nerror_log {folder}/error.log info;\n"
        "events { worker_connections 1024; }\n"
        f"http {{\n  access_log off;\n{temporary}  include penstock.conf;\n}}\n"
    )


def write_certificate(folder: Path) -> None:
    """A certificate for localhost, good for a day, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
