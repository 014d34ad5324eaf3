"""Streams of the gguf engine in this process, on a model of 125 million random weights.

The part of `python -m tests.gguf_throughput` that needs no server: how late the event loop is,
and what a long prompt costs others, and itself the second time.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path

from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.protocol import Finished, GenerateRequest, Sampling, Started
from gateway.bench.summary import spread_of
from tests.gguf_files import write_gguf

MODEL = "real-sized"
SHAPE = {
    "layers": 12, "width": 768, "heads": 12, "kv_heads": 4, "feed_forward": 2048,
    "extra_tokens": 31_727, "context_tokens": 8192, "chat_template": None,
    # Single bytes that are no text end llama-server's streams.
    "silent_tokens": 280,
}  # fmt: skip


def model_in(folder: Path) -> Path:
    """The model's file, made if it is not there: 125 million weights, 133 MB."""
    path = folder / f"{MODEL}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_gguf(path.with_suffix(".partial"), **SHAPE).replace(path)
    return path


@asynccontextmanager
async def engine_in(folder: Path, **fields: object) -> AsyncGenerator[GgufEngine, None]:
    """The engine in this process, with the model loaded."""
    model_in(folder)
    engine = GgufEngine("laptop", GgufConfig(**fields), models_dir=folder, data_dir=folder)  # type: ignore[arg-type]
    await engine.start()
    try:
        await engine.load(MODEL)
        yield engine
    finally:
        await engine.close()


class Stream:
    """One answer and when its tokens came."""

    def __init__(self, prompt: list[int], max_tokens: int) -> None:
        self.arrivals: list[float] = []
        self.asked_at = time.perf_counter()
        self.cached_tokens = 0
        self.has_begun = asyncio.Event()
        self._request = GenerateRequest(
            id="r",
            model=MODEL,
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0.8, ignore_eos=True, top_k=40, top_p=0.95),
        )

    async def read(self, engine: GgufEngine) -> None:
        """Ask, and read to the end."""
        self.asked_at = time.perf_counter()
        async with aclosing(engine.generate(self._request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self.cached_tokens = event.usage.cached_tokens
                elif not isinstance(event, Started):
                    self.arrivals.append(time.perf_counter())
                    self.has_begun.set()

    @property
    def first_output(self) -> float:
        """Seconds to the first token."""
        return self.arrivals[0] - self.asked_at

    def gaps(self, since: float, until: float) -> list[float]:
        """Seconds between tokens that came in this time."""
        times = [at for at in self.arrivals if since <= at <= until]
        return [later - earlier for earlier, later in pairwise(times)]


def prompt_of(seed: int, num_tokens: int) -> list[int]:
    """Token ids that nobody asked for before."""
    chosen = random.Random(seed)
    return [chosen.randrange(300, 32_000) for _ in range(num_tokens)]


async def lag(folder: Path) -> None:
    """How late a timer of 2 ms is while 16 streams are decoded and read on the same loop."""
    cores = len(os.sched_getaffinity(0))
    for threads in dict.fromkeys([None, max(1, cores - 1)]):
        async with engine_in(folder, num_threads=threads) as engine:
            late: list[float] = []
            streams = [Stream(prompt_of(at, 40), 160) for at in range(16)]
            reading = [asyncio.create_task(stream.read(engine)) for stream in streams]
            for stream in streams:
                await stream.has_begun.wait()
            while not any(task.done() for task in reading):
                due = time.perf_counter() + 0.002
                await asyncio.sleep(0.002)
                late.append(1000 * (time.perf_counter() - due))
            await asyncio.gather(*reading)
        spread = spread_of(late)
        assert spread is not None
        say(
            f"threads {threads or 'as chosen'}: {len(late)} ticks late by p50 {spread.p50:.2f} ms, "
            f"p99 {spread.p99:.2f} ms, worst {max(late):.2f} ms"
        )


async def long_prompt(folder: Path) -> None:
    """Gaps in 8 streams while 4,000 tokens arrive; the same prompt again, and after an unload."""
    prompt = prompt_of(1, 4000)
    async with engine_in(folder) as engine:
        streams = [Stream(prompt_of(100 + at, 40), 400) for at in range(8)]
        reading = [asyncio.create_task(stream.read(engine)) for stream in streams]
        for stream in streams:
            await stream.has_begun.wait()
        await asyncio.sleep(1.0)
        first = Stream(prompt, 4)
        await first.read(engine)
        began, ended = first.asked_at, first.arrivals[0]
        gaps = [gap for stream in streams for gap in stream.gaps(began, ended)]
        before = [gap for stream in streams for gap in stream.gaps(0.0, began)]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        say(
            f"8 streams: a token every {1000 * statistics.median(before):.0f} ms alone; beside the "
            f"prompt every {1000 * statistics.median(gaps):.0f} ms, {1000 * max(gaps):.0f} at worst"
            f" (a chunk is a step: the worst is {max(gaps) / statistics.median(gaps):.2f} steps)"
        )
        alone, again, restored = (Stream([7 + at, *prompt], 4) for at in (0, 0, 0))
        await alone.read(engine)
        await again.read(engine)
        await engine.unload(MODEL)
        await engine.load(MODEL)
        await restored.read(engine)
        for name, stream in (("again", again), ("after an unload", restored)):
            say(
                f"{name}: {stream.cached_tokens} cached, first output {stream.first_output:.3f} s, "
                f"{stream.first_output / alone.first_output:.1%} of {alone.first_output:.3f} s"
            )


def say(line: str) -> None:
    """One line of the result."""
    print(line, flush=True)  # noqa: T201
