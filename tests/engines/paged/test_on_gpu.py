"""The whole engine on a real GPU, with real graphs; `make bench-gpu` runs it."""

import asyncio

import pytest
import torch
from structlog.testing import capture_logs

from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.protocol import Choice, JsonObject, Regex, Sampling
from tests.engines.paged.test_engine import asking, text
from tests.engines.paged.test_graphs import FREE, PENALIZED, told

pytestmark = pytest.mark.gpu


def engine_on(device: str, *, graphs: bool = True) -> PagedEngine:
    config = PagedConfig(
        model="starter",
        device=device,
        dtype="float32",
        graphs=graphs,
        max_sequences=8,
        max_batch_tokens=64,
        memory_fraction=0.5,
    )
    return PagedEngine(device, config)


async def test_replays_say_what_plain_steps_say() -> None:
    requests = [
        asking(FREE, logprobs=2, prompt_logprobs=1),
        asking(FREE, logprobs=0, sampling=PENALIZED),
        asking(FREE, sampling=Sampling(temperature=0.9, seed=7)),
    ]
    plain, recorded = engine_on("cuda:0", graphs=False), engine_on("cuda:0")
    await plain.start()
    answers = [await told(plain, request) for request in requests]
    await plain.close()
    expected = [(said, ids, pytest.approx(scores, abs=1e-3)) for said, ids, scores in answers]
    await recorded.start()

    with capture_logs() as logs:
        alone = [await told(recorded, request) for request in requests]
        together = await asyncio.gather(*(told(recorded, request) for request in requests))

    await recorded.close()
    assert alone == expected
    assert together == expected
    events = [entry["event"] for entry in logs]
    assert "graph_recorded" in events
    assert "graph_skipped" not in events


async def test_constraints_hold_beside_free_answers() -> None:
    engine = engine_on("cuda")
    await engine.start()

    free, choice, digits, as_json = await asyncio.gather(
        text(engine, asking(FREE)),
        text(engine, asking("Hi", constraint=Choice(["apple", "pear"]))),
        text(engine, asking("Hi", constraint=Regex("[0-9]{9}"))),
        text(engine, asking("Ada is 36.", constraint=JsonObject())),
    )

    await engine.close()
    assert free.startswith("1, 2, 3, 4")
    assert choice in ("apple", "pear")
    assert digits.isdigit()
    assert as_json.startswith("{")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU at most")
async def test_two_engines_have_a_gpu_each() -> None:
    first, second = engine_on("cuda:0"), engine_on("cuda:1")
    await asyncio.gather(first.start(), second.start())

    answers = await asyncio.gather(
        *(text(engine, asking(FREE)) for engine in (first, second) for _ in range(3))
    )

    await asyncio.gather(first.close(), second.close())
    assert len(set(answers)) == 1
    assert answers[0].startswith("1, 2, 3, 4")
