"""`penstock bench`: how fast a model answers, with one and with many callers at once.

Works against any OpenAI-compatible server, so that two can be compared in one
sitting: `--url` may be given several times, and their runs alternate, because a
machine drifts more in an hour than most servers differ.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import click

from gateway.cli.client import default_url

WORDS = [
    "river",
    "gate",
    "turbine",
    "water",
    "stone",
    "field",
    "garden",
    "window",
    "letter",
    "winter",
    "summer",
    "morning",
    "evening",
    "music",
    "bridge",
    "harbour",
    "island",
    "forest",
    "meadow",
    "kitchen",
    "market",
    "village",
    "castle",
    "engine",
    "lantern",
]


@dataclass
class Sample:
    """One streamed answer, as its client saw it; times in seconds."""

    first_output: float
    total: float
    num_tokens: int
    gaps: list[float] = field(default_factory=list[float])
    text: str = ""


@dataclass
class Run:
    """All answers of one concurrency level at one server."""

    url: str
    concurrency: int
    seconds: float
    samples: list[Sample]
    failures: list[str]

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens of all callers, over the wall time."""
        return sum(sample.num_tokens for sample in self.samples) / self.seconds


@click.command("bench")
@click.argument("model")
@click.option("--url", "urls", multiple=True, help="Base URL; repeat it to compare servers.")
@click.option("--key", envvar=["PENSTOCK_API_KEY", "OPENAI_API_KEY"], default="unused")
@click.option("--at-once", default="1,4,16", show_default=True, help="Numbers of callers.")
@click.option("--requests", "num_requests", default=32, show_default=True, help="For each number.")
@click.option("--max-tokens", default=96, show_default=True, help="Length of each answer.")
@click.option("--prompt-words", default=30, show_default=True, help="Length of each prompt.")
@click.option("--prompt", help="Ask this instead of random words.")
@click.option("--rounds", default=3, show_default=True, help="The median round is reported.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(urls: Sequence[str], at_once: str, *, as_json: bool, **options: Any) -> None:
    """Measure MODEL's tokens per second and waits, at several numbers of callers.

    Every caller streams, at temperature 0, and asks again as soon as it is
    answered. Prompts are all different unless --prompt is given.
    """
    try:
        levels = [int(level) for level in at_once.split(",")]
    except ValueError:
        raise click.BadParameter(f"{at_once!r} is not a list like 1,4,16") from None
    targets = [url.rstrip("/").removesuffix("/v1") for url in urls or [default_url()]]
    runs = asyncio.run(_all_runs(targets, levels, options))
    if as_json:
        click.echo(json.dumps([_row(run) for run in runs], indent=2))
        return
    _print(runs)


async def _all_runs(
    targets: Sequence[str], levels: Sequence[int], options: dict[str, Any]
) -> list[Run]:
    kept: list[Run] = []
    for level in levels:
        rounds: dict[str, list[Run]] = {url: [] for url in targets}
        for number in range(options["rounds"]):
            for url in targets:
                click.echo(f"{url}: {level} at once, round {number + 1}", err=True)
                rounds[url].append(await _run(url, level, number, options))
        for runs in rounds.values():
            runs.sort(key=lambda run: run.tokens_per_second)
            kept.append(runs[len(runs) // 2])
    return kept


async def _run(url: str, concurrency: int, number: int, options: dict[str, Any]) -> Run:
    import httpx
    from httpx_aiohttp import AiohttpTransport

    prompts = iter(
        [
            options["prompt"] or _prompt(options["prompt_words"], concurrency, number, index)
            for index in range(options["num_requests"])
        ]
    )
    samples: list[Sample] = []
    failures: list[str] = []
    headers = {"authorization": f"Bearer {options['key']}"}
    timeout = httpx.Timeout(None, connect=10)
    async with httpx.AsyncClient(
        transport=AiohttpTransport(), headers=headers, timeout=timeout
    ) as client:

        async def caller() -> None:
            for prompt in prompts:
                try:
                    samples.append(await _ask(client, url, prompt, options))
                except (httpx.HTTPError, ValueError) as error:
                    failures.append(f"{type(error).__name__}: {error}")

        since = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        seconds = time.perf_counter() - since
    return Run(url, concurrency, seconds, samples, failures)


def _prompt(num_words: int, concurrency: int, number: int, index: int) -> str:
    # Different from the first word on, so that no prefix cache helps.
    seed = (concurrency * 1_000 + number) * 10_000 + index
    words = [
        WORDS[(seed * 7919 + place * (seed % 17 + 1)) % len(WORDS)] for place in range(num_words)
    ]
    return f"{seed} {' '.join(words)}"


async def _ask(client: Any, url: str, prompt: str, options: dict[str, Any]) -> Sample:
    body = {
        "model": options["model"],
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": options["max_tokens"],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    since = last = time.perf_counter()
    sample = Sample(0.0, 0.0, 0)
    pieces: list[str] = []
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            raise ValueError(f"HTTP {response.status_code}: {response.text[:200]}")
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[len("data: ") :])
            if chunk.get("usage"):
                sample.num_tokens = chunk["usage"]["completion_tokens"]
            text = "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            if text:
                now = time.perf_counter()
                if pieces:
                    sample.gaps.append(now - last)
                else:
                    sample.first_output = now - since
                last = now
                pieces.append(text)
    sample.total = time.perf_counter() - since
    sample.num_tokens = sample.num_tokens or len(pieces)  # a server that tells no usage
    sample.text = "".join(pieces)
    return sample


def _row(run: Run) -> dict[str, Any]:
    firsts = [sample.first_output for sample in run.samples]
    gaps = [gap for sample in run.samples for gap in sample.gaps]
    totals = [sample.total for sample in run.samples]
    return {
        "url": run.url,
        "at_once": run.concurrency,
        "answers": len(run.samples),
        "failures": len(run.failures),
        "first_failure": run.failures[0] if run.failures else None,
        "seconds": round(run.seconds, 3),
        "tokens_per_second": round(run.tokens_per_second, 1),
        "first_output_ms_p50": _milliseconds(firsts, 0.5),
        "first_output_ms_p95": _milliseconds(firsts, 0.95),
        "between_tokens_ms_p50": _milliseconds(gaps, 0.5),
        "between_tokens_ms_p99": _milliseconds(gaps, 0.99),
        "answer_ms_p50": round(median(totals) * 1000, 1) if totals else None,
    }


def _milliseconds(values: list[float], quantile: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1000, 2)


def _print(runs: Sequence[Run]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = [_row(run) for run in runs]
    shown = [name for name in rows[0] if name != "first_failure"]
    table = Table(*(name.replace("_", " ") for name in shown), box=None)
    for row in rows:
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in shown))
    console = Console(soft_wrap=True)
    console.print(table)
    for row in rows:
        if row["first_failure"]:
            console.print(f"[red]{row['url']}: {row['first_failure']}[/red]")
