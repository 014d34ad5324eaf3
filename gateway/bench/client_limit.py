"""What this client itself costs, measured against a server that computes nothing.

A server cannot be measured to be faster than its client reads. The trivial
server runs in a process of its own; the client's cost is its thread's computing
time, so that it is right also where both share a core.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from msgspec import Struct

from gateway.bench.drive import drive
from gateway.bench.http_subject import Server, connected
from gateway.bench.load import AtOnce
from gateway.bench.question import Conversation, Question, SubjectUnusable
from gateway.bench.summary import Spread, summary_of

_NUM_TOKENS = 100
_NUM_ROUNDS = 10  # answers of each caller


class ClientLimit(Struct, frozen=True, kw_only=True):
    """The client's own part in what it measures."""

    num_callers: int
    seconds_per_piece: float  # of the client's computing time
    first_output: Spread  # with a server that answers at once

    @property
    def pieces_per_second(self) -> float:
        """The most that one client process can take in."""
        return 1.0 / self.seconds_per_piece


async def measure_client(num_callers: int) -> ClientLimit:
    """Ask the trivial server with this many callers at once. Raises `SubjectUnusable`."""
    question = Question(text="a question", max_tokens=_NUM_TOKENS)
    conversations = [Conversation(questions=[question])] * (num_callers * _NUM_ROUNDS)
    async with (
        _trivial_server() as url,
        connected(Server(url=url, model="trivial")) as subject,
    ):
        await drive(subject, conversations[:num_callers], AtOnce(num_callers))  # connects
        run = await drive(subject, conversations, AtOnce(num_callers))
    summary = summary_of(run)
    if summary.latencies.first_output is None or run.client_busy is None:
        raise SubjectUnusable(f"the trivial server answered nothing: {summary.failure_messages}")
    return ClientLimit(
        num_callers=num_callers,
        seconds_per_piece=run.client_busy * run.seconds / summary.output_tokens,
        first_output=summary.latencies.first_output,
    )


@asynccontextmanager
async def _trivial_server() -> AsyncGenerator[str, None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.bench.trivial_server",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = (await process.stdout.readline()).decode().strip()
        if not port:
            raise SubjectUnusable("the trivial server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stdin.close()
        await process.wait()
