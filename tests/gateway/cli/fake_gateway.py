"""A gateway of a few lines that speaks Ollama's API as its documentation has it.

For what a real one cannot be made to do when a test wants it: to wait in the
middle of a pull, to break off, to be without a model. It notes what it was asked.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Lines = list[Mapping[str, Any] | threading.Event]

LAYER = "sha256:" + "6a" * 32
PULL: Lines = [
    {"status": "pulling manifest"},
    {"status": "pulling 6a6a6a6a6a6a", "digest": LAYER, "total": 4_000_000},
    {"status": "pulling 6a6a6a6a6a6a", "digest": LAYER, "total": 4_000_000, "completed": 1_000_000},
    {"status": "pulling 6a6a6a6a6a6a", "digest": LAYER, "total": 4_000_000, "completed": 4_000_000},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]
DONE: Mapping[str, Any] = {
    "message": {"role": "assistant", "content": ""},
    "done": True,
    "done_reason": "stop",
    "total_duration": 2_500_000_000,
    "load_duration": 500_000_000,
    "prompt_eval_count": 10,
    "prompt_eval_duration": 100_000_000,
    "eval_count": 20,
    "eval_duration": 2_000_000_000,
}
CARD: Mapping[str, Any] = {
    "license": "Free for all\nwith three\nlines",
    "modelfile": "FROM tiny\nPARAMETER temperature 0.5",
    "parameters": 'temperature    0.5\nstop           "a b"',
    "template": "{{ .Prompt }}",
    "system": "be kind",
    "details": {"family": "llama", "parameter_size": "124.7M", "quantization_level": "Q8_0"},
    "model_info": {
        "general.architecture": "llama",
        "general.parameter_count": 124_700_000,
        "llama.context_length": 4096,
        "tokenizer.ggml.tokens": ["a", "b", "c", "d"],
    },
    "tensors": [{"name": "token_embd.weight", "type": "Q8_0", "shape": [768, 32000]}],
    "capabilities": ["completion", "vision", "thinking"],
}


def said(*words: str, thinking: str = "") -> Lines:
    """The lines of a streamed answer."""
    lines: Lines = []
    if thinking:
        lines.append({"message": {"role": "assistant", "thinking": thinking}, "done": False})
    for word in words:
        lines.append({"message": {"role": "assistant", "content": word}, "done": False})
    return [*lines, DONE]


class FakeGateway:
    """What it has and says; a test changes it, and reads what was `asked`."""

    def __init__(self) -> None:
        self.url = ""
        self.models: dict[str, dict[str, Any]] = {"tiny:latest": {**CARD}}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, Any]] = []
        self.answer: Lines = said("hello", " there")
        self.headers: dict[str, str] = {}  # of streams
        self.pull: Lines = list(PULL)
        self.making: Lines = [{"status": "writing manifest"}, {"status": "success"}]
        self.refusal: tuple[int, str] | None = None  # for whatever is asked of the library
        self.hung_up = threading.Event()  # a stream's reader went away

    def bodies(self, path: str) -> list[Any]:
        """The bodies that were sent to a path."""
        return [body for asked, body in self.asked if asked == path]

    def named(self, name: str) -> str:
        return name if ":" in name else f"{name}:latest"


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    """Serve until the block ends."""
    state = FakeGateway()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FakeGateway
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        match self.path:
            case "/healthz":
                self._json({"status": "ok"})
            case "/api/tags":
                entry = {"modified_at": "2026-01-01T00:00:00.123456789Z", "size": 133_000_000}
                self._json({"models": [self._entry(name, entry) for name in self.state.models]})
            case "/api/ps":
                entry = {
                    "size": 200_000_000, "size_vram": 50_000_000, "context_length": 4096,
                    "expires_at": "2318-01-01T00:00:00Z",
                }  # fmt: skip
                self._json({"models": [self._entry(name, entry) for name in self.state.models]})
            case _:
                self._error(404, "there is no such path")

    def do_HEAD(self) -> None:
        digest = self.path.removeprefix("/api/blobs/")
        status = 200 if digest in self.state.blobs else 404
        self.send_response(self.state.refusal[0] if self.state.refusal else status)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_DELETE(self) -> None:
        body = self._body()
        name = self.state.named(body["model"])
        if self._refused():
            return
        if self.state.models.pop(name, None) is None:
            self._error(404, f"model '{body['model']}' not found")
        else:
            self._json(None)

    def do_POST(self) -> None:
        if self.path.startswith("/api/blobs/"):
            self._take_blob()
            return
        body = self._body()
        state = self.state
        if self._refused():
            return
        if self.path in ("/api/pull", "/api/push", "/api/create"):
            lines = state.making if self.path == "/api/create" else state.pull
            if lines[-1] == {"status": "success"}:
                state.models.setdefault(state.named(body["model"]), {**CARD})
            self._lines(lines)
        elif (name := body.get("model") or body.get("source")) is None:
            self._error(404, "there is no such path")
        elif state.named(name) not in state.models:
            self._error(404, f"model '{name}' not found")
        else:
            self._answer(body)

    def _answer(self, body: Any) -> None:
        state = self.state
        match self.path:
            case "/api/show":
                self._json(state.models[state.named(body["model"])])
            case "/api/copy":
                state.models[state.named(body["destination"])] = {**CARD}
                self._json(None)
            case "/api/generate":
                self._json({"done": True, "done_reason": "unload"})
            case "/api/embed":
                self._json({"embeddings": [[0.25, 0.5]]})
            case "/api/chat" if not body["messages"]:
                self._json({"done": True, "done_reason": "load"})
            case _:
                self._lines(state.answer)

    def _take_blob(self) -> None:
        digest = self.path.removeprefix("/api/blobs/")
        content = self.rfile.read(int(self.headers["content-length"]))
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            self._error(400, "digest mismatch")
            return
        self.state.blobs[digest] = content
        self._json(None, status=201)

    def _entry(self, name: str, more: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": name, "model": name, "digest": "5f" * 32, **more}

    def _body(self) -> Any:
        content = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(content or "null")
        self.state.asked.append((self.path, body))
        return body

    def _refused(self) -> bool:
        if self.state.refusal is None or self.path in ("/api/chat", "/api/show"):
            return False
        self._error(*self.state.refusal)
        return True

    def _error(self, status: int, message: str) -> None:
        self._json({"error": message}, status=status)

    def _json(self, body: Any, *, status: int = 200) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _lines(self, lines: Lines) -> None:
        """A stream of lines; an event in it waits until it is set, or the reader has gone."""
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("connection", "close")
        for name, value in self.state.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        for line in lines:
            if isinstance(line, threading.Event):
                if not self._waited(line):
                    return
            else:
                self.wfile.write(json.dumps(line).encode() + b"\n")

    def _waited(self, event: threading.Event) -> bool:
        self.connection.settimeout(0.02)
        while not event.wait(0):
            try:
                if not self.connection.recv(1):
                    self.state.hung_up.set()
                    return False
            except TimeoutError:
                continue
            except OSError:
                self.state.hung_up.set()
                return False
        self.connection.settimeout(None)
        return True
