"""A server that does nothing but answer, to find out what the client itself costs.

Run as `python -m gateway.bench.trivial_server`: prints its port, serves until
its standard input closes. Every question is answered with `max_tokens` pieces
that were encoded beforehand, one write and one turn of the loop each, so that
they reach the client one by one as a model's do.
"""

import asyncio
import json
import sys

_PIECE = b'data: {"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _ending(num_tokens: int) -> bytes:
    usage = f'{{"prompt_tokens":1,"completion_tokens":{num_tokens}}}'.encode()
    events = (
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
        b'data: {"choices":[],"usage":' + usage + b"}\n\ndata: [DONE]\n\n"
    )
    return _chunked(events) + b"0\r\n\r\n"


async def _serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    piece = _chunked(_PIECE)
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            num_tokens = json.loads(await reader.readexactly(_length_of(head)))["max_tokens"]
            writer.write(_HEAD)
            for _ in range(num_tokens):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(_ending(num_tokens))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _length_of(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def _serve() -> None:
    server = await asyncio.start_server(_serve_connection, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
