"""Measures what passing calls on to an upstream costs. A script, not a test.

python -m tests.forwarding calls                # small chat completions, one after another
python -m tests.forwarding streams --at-once 64,256,512

Each figure stands beside that of a bare relay under the same load in the same run: aiohttp
under uvicorn for calls, a copier of bytes for streams. Absolute figures say more about the
machine. `calls` needs wrk; with --url it measures another gateway too (LiteLLM's, say).
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.serving import write_policy

NUM_FRAMES = 64
FRAME_SECONDS = 0.02
LATE_SECONDS = 0.2
ANSWER = json.dumps({
    "id": "chatcmpl-abc123", "object": "chat.completion", "created": 1_700_000_000,
    "model": "upstream-model",
    "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": {
        "role": "assistant", "content": "Hello! How can I help you today?", "refusal": None}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
}).encode()  # fmt: skip
BODY = {
    "model": "chat-small",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"},
    ],
}
POLICY = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing", "remote_engine"]
        [anonymous]
        team = "me"
    """,
    "engines.toml": '[up]\nkind = "remote"\nbase_url = "{url}"\nmax_connections = 4096',
    "models.toml": '[chat-small]\n[[chat-small.targets]]\nengine = "up"\nmodel = "upstream-model"',
}
WRK = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
wrk.body = '{body}'
"""


# The processes under load. Each is this file again, with a role and a port.


async def upstream(port: int) -> None:
    """Answers every POST: a stream of stamped frames where the body asks for one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", asked, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if b'"stream":true' in body.replace(b" ", b""):
                    await stream(writer)
                    continue
                answer = b'{"data":[{"id":"upstream-model"}]}' if asked[:3] == b"GET" else ANSWER
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(answer), answer)
                )
        writer.close()

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        began = time.monotonic()
        for number in range(NUM_FRAMES):
            await asyncio.sleep(max(0.0, began + number * FRAME_SECONDS - time.monotonic()))
            reason = b'"stop"' if number == NUM_FRAMES - 1 else b"null"
            frame = (
                b'data: {"id":"chatcmpl-abc","object":"chat.completion.chunk","created":1700000000,'
                b'"model":"upstream-model","choices":[{"index":0,"delta":{"content":"@%d@"},'
                b'"finish_reason":%b}]}\n\n' % (time.monotonic_ns(), reason)
            )
            writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        done = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def copier(port: int, behind: int) -> None:
    """Copies bytes between each connection and one to the upstream."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def relay(port: int, behind: int) -> None:
    """The least that forwards a call: uvicorn, aiohttp and nothing between."""
    import aiohttp
    import uvicorn

    sessions: list[aiohttp.ClientSession] = []
    url = f"http://127.0.0.1:{behind}/v1/chat/completions"

    async def app(scope: dict, receive: Callable, send: Callable) -> None:  # type: ignore[type-arg]
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        if not sessions:
            connector = aiohttp.TCPConnector(limit=0)
            sessions.append(aiohttp.ClientSession(connector=connector))
        headers = {"content-type": "application/json"}
        async with sessions[0].post(url, data=body, headers=headers) as response:
            answer = await response.read()
        start = [(b"content-type", b"application/json"),
                 (b"content-length", str(len(answer)).encode())]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(app, port=port, log_level="error", access_log=False, lifespan="off")


@contextlib.contextmanager
def role(name: str, *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """One of the above in a process of its own, listening."""
    with running([sys.executable, "-m", "tests.forwarding", name, *map(str, ports)], ports[0]) as p:
        yield p


@contextlib.contextmanager
def gateway(directory: Path, port: int, behind: int) -> Iterator[subprocess.Popen[bytes]]:
    """`penstock serve` in front of the upstream."""
    texts = {
        name: text.replace("{url}", f"http://127.0.0.1:{behind}/v1")
        for name, text in POLICY.items()
    }
    policy = write_policy(directory / "policy", texts)
    environ = {"PENSTOCK_POLICY": str(policy), "PENSTOCK_DATA_DIR": str(directory / "data")}
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
    with running([*command, "--log-level", "error"], port, environ) as process:
        yield process


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **(environ or {})})
    try:
        asyncio.run(listening(port))
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return
            await asyncio.sleep(0.1)


# The measurements.


def measure_calls(
    url: str, pid: int | None, seconds: int, key: str = "unused", more: Sequence[str] = ()
) -> str:
    """Requests a second with 16 connections, and what the server's processor spent on each."""
    body = json.dumps(BODY)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.replace("{body}", body).replace("{key}", key))
        for name, _, value in (header.partition(":") for header in more):
            script.write(f'wrk.headers["{name.strip()}"] = "{value.strip()}"\n')
        script.flush()
        command = ["wrk", "-t1", "-c16", "--latency", "-s", script.name, url]
        subprocess.run([*command, "-d1s"], capture_output=True, check=True)
        before = processor_seconds(pid)
        done = subprocess.run([*command, f"-d{seconds}s"], capture_output=True, check=True)
        spent = processor_seconds(pid) - before
    told = done.stdout.decode()
    number = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    median = re.search(r"50% +(\S+)", told)[1]  # type: ignore[index]
    failed = " FAILURES" if "Non-2xx" in told else ""
    cost = f"{1e6 * spent / number:6.0f} µs of processor" if pid else ""
    return f"{number / seconds:7.0f} calls/s, median {median:>8} {cost}{failed}"


def processor_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_streams(port: int, at_once: int) -> str:
    """How long frames of so many streams take from the upstream's hand to the client's."""
    body = json.dumps({**BODY, "stream": True}).encode()
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (port, len(body), body)
    )
    late: list[float] = []
    whole = 0

    async def one() -> None:
        nonlocal whole
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        rest, frames = b"", 0
        while b"[DONE]" not in rest and (data := await reader.read(65536)):
            now = time.monotonic_ns()
            stamps = re.findall(rb"@(\d+)@", rest + data)
            rest = (rest + data).rpartition(b"@")[2] if stamps else rest + data
            frames += len(stamps)
            late.extend((now - int(stamp)) / 1e9 for stamp in stamps)
        whole += frames == NUM_FRAMES
        writer.close()

    async def after(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await one()

    # Not all in the same millisecond: no crowd of clients is that punctual.
    await asyncio.gather(*(after(FRAME_SECONDS * 10 * i / at_once) for i in range(at_once)))
    late.sort()
    too_late = sum(seconds > LATE_SECONDS for seconds in late)
    return (
        f"{whole}/{at_once} whole, frames late by p50 {1e3 * late[len(late) // 2]:.1f} ms, "
        f"p99 {1e3 * late[len(late) * 99 // 100]:.1f} ms, worst {1e3 * late[-1]:.1f} ms, "
        f"{too_late} over {LATE_SECONDS * 1e3:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.forwarding")
    parser.add_argument("what", choices=["calls", "streams", "upstream", "copier", "relay"])
    parser.add_argument("ports", type=int, nargs="*")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", default="64,256,512")
    parser.add_argument("--url", help="another gateway's chat completions, for `calls`")
    parser.add_argument("--pid", type=int, help="its process, for what its processor spends")
    parser.add_argument("--header", action="append", default=[], help="`name: value` for it")
    parser.add_argument("--key", default="unused", help="its API key")
    options = parser.parse_args()
    if options.what in ("upstream", "copier"):
        import uvloop

        server = upstream if options.what == "upstream" else copier
        uvloop.run(server(*options.ports))
    elif options.what == "relay":
        relay(*options.ports)
    elif options.what == "calls":
        calls(options)
    else:
        streams(options)


def calls(options: argparse.Namespace) -> None:
    if shutil.which("wrk") is None:
        sys.exit("calls are sent by wrk, which is not installed here (Debian: apt install wrk)")
    path = "/v1/chat/completions"
    with (
        tempfile.TemporaryDirectory() as directory,
        role("upstream", 9401),
        role("relay", 9402, 9401) as bare,
        gateway(Path(directory), 9403, 9401) as penstock,
    ):
        for _ in range(options.rounds):
            for name, port, process in (("bare relay", 9402, bare), ("penstock", 9403, penstock)):
                url = f"http://127.0.0.1:{port}{path}"
                print(f"{name:12}", measure_calls(url, process.pid, options.seconds))  # noqa: T201
            if options.url:
                told = measure_calls(
                    options.url, options.pid, options.seconds, options.key, options.header
                )
                print(f"{'other':12}", told)  # noqa: T201


def streams(options: argparse.Namespace) -> None:
    import uvloop

    with (
        tempfile.TemporaryDirectory() as directory,
        role("upstream", 9401),
        role("copier", 9402, 9401),
        gateway(Path(directory), 9403, 9401),
    ):
        for at_once in map(int, options.at_once.split(",")):
            for _ in range(options.rounds):
                for name, port in (("byte relay", 9402), ("penstock", 9403)):
                    told = uvloop.run(measure_streams(port, at_once))
                    print(f"{name:12} {at_once:4} at once: {told}")  # noqa: T201


if __name__ == "__main__":
    main()
