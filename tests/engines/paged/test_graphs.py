"""Steps that are recorded and replayed; FakeRecorder stands in for the GPU."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor

from engines.paged import loading
from engines.paged.batch import StepBuffers, StepTensors
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.paged.graphs import Graphs, buckets
from engines.protocol import Choice, GenerateRequest, JsonObject, Regex, Sampling, TextDelta
from tests.engines.paged.checkpoints import greedy, reference, write_checkpoint
from tests.engines.paged.fake_recorder import FakeRecorder
from tests.engines.paged.test_engine import asking, events_of, text
from tests.engines.paged.test_same_tokens import NUM_NEW, answer, prompts_of
from tests.fakes import text_of

FREE = "Count from 1 to 20."
PENALIZED = Sampling(temperature=0.0, repeat_penalty=1.5)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> FakeRecorder:
    """What the engine of a test records with."""
    recorder = FakeRecorder()
    monkeypatch.setattr(loading, "recorder_of", lambda *_: recorder)
    return recorder


@pytest.fixture
async def engine(recorder: FakeRecorder) -> AsyncGenerator[PagedEngine, None]:
    config = PagedConfig(model="starter", max_sequences=8, max_batch_tokens=64, num_threads=1)
    engine = PagedEngine("gpu0", config)
    await engine.start()
    yield engine
    await engine.close()


async def told(engine: PagedEngine, request: GenerateRequest) -> tuple[str, list[int], list[float]]:
    """The text of an answer, and its tokens and their scores where they were asked for."""
    events = await events_of(engine, request)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    entries = [entry for delta in deltas for entry in delta.logprobs]
    return text_of(events), [entry.id for entry in entries], [entry.logprob for entry in entries]


@pytest.mark.parametrize("is_alone", [True, False])
async def test_constraints_hold_in_replayed_steps(
    engine: PagedEngine, recorder: FakeRecorder, is_alone: bool
) -> None:
    free = asyncio.create_task(text(engine, asking(FREE)))
    if is_alone:
        assert (await free).startswith("1, 2, 3, 4")

    choice = await text(engine, asking("Hi", constraint=Choice(["apple", "pear"])))
    digits = await text(engine, asking("Hi", constraint=Regex("[0-9]{9}")))
    as_json = await text(engine, asking("Ada is 36.", constraint=JsonObject()))

    assert (await free).startswith("1, 2, 3, 4")
    assert choice in ("apple", "pear")
    assert len(digits) == 9
    assert digits.isdigit()
    assert as_json.startswith("{")
    assert "replay" in recorder.events


async def test_log_probabilities_and_penalties_are_the_same_in_replayed_steps(
    engine: PagedEngine, recorder: FakeRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        asking(FREE, max_tokens=9, logprobs=2, prompt_logprobs=1),
        asking(FREE, max_tokens=9, logprobs=0, sampling=PENALIZED),
        asking(FREE, max_tokens=9, sampling=Sampling(temperature=0.9, seed=7)),
    ]
    monkeypatch.setattr(loading, "recorder_of", lambda *_: None)
    plain = PagedEngine("plain", PagedConfig(model="starter", num_threads=1))
    await plain.start()

    answers = [await told(plain, request) for request in requests]
    expected = [(said, ids, pytest.approx(scores, abs=1e-4)) for said, ids, scores in answers]
    alone = [await told(engine, request) for request in requests]
    together = await asyncio.gather(*(told(engine, request) for request in requests))

    await plain.close()
    assert alone == expected
    assert together == expected
    assert "replay" in recorder.events


async def test_replayed_steps_give_the_tokens_of_transformers(
    tmp_path: Path, recorder: FakeRecorder
) -> None:
    torch.set_num_threads(1)
    folder = write_checkpoint(tmp_path / "model", "gemma2")
    checkpoint = Checkpoint(folder)
    config = PagedConfig(
        model=str(folder),
        context_tokens=80,
        max_sequences=6,
        max_batch_tokens=23,
        kv_cache_bytes=7 * 16 * checkpoint.kv_bytes_per_token(torch.float32),
    )
    engine = PagedEngine(folder.name, config)
    prompts = prompts_of(checkpoint.shape.vocab_size)
    model = reference(folder)
    expected = [greedy(model, prompt, NUM_NEW) for prompt in prompts]
    await engine.start()

    together = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))
    alone = [await answer(engine, prompt) for prompt in prompts]

    await engine.close()
    assert [tokens for tokens, _ in together] == expected
    assert [tokens for tokens, _ in alone] == expected
    assert recorder.events.count("replay") > 3 * NUM_NEW


async def test_a_recording_that_fails_leaves_its_steps_to_be_run_plainly(
    engine: PagedEngine, recorder: FakeRecorder
) -> None:
    recorder.failure = RuntimeError("CUDA error: operation not permitted\nfor several reasons")

    with capture_logs() as logs:
        first = await text(engine, asking(FREE, max_tokens=9))
        second = await text(engine, asking(FREE, max_tokens=9))

    assert first.startswith("1, 2, 3")
    assert second == first
    assert recorder.events == ["run", "record"]
    assert [entry["reason"] for entry in logs if entry["event"] == "graph_skipped"] == [
        "CUDA error: operation not permitted"
    ]
    health = await engine.health()
    assert health.ready


class Seen(NamedTuple):
    """A tensor as a kernel's compiler sees it, and where it lies."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    address: int


class Watching:
    """Obeys the protocol `Computing`; notes what it is given."""

    def __init__(self) -> None:
        self.seen: list[list[Seen]] = []

    def states(self, tensors: StepTensors) -> Tensor:
        fields = (getattr(tensors, name) for name in StepTensors.__slots__)
        given = [one for one in fields if isinstance(one, Tensor)]
        self.seen.append([Seen(tuple(one.shape), one.stride(), one.data_ptr()) for one in given])
        return torch.zeros(len(tensors.ids), 4)

    def drawn(self, tensors: StepTensors, hidden: Tensor) -> Tensor:
        return torch.zeros(len(tensors.picks), dtype=torch.int64)


@pytest.mark.parametrize("samples", [True, False])
def test_what_is_recorded_was_run_before_on_the_same_tensors(samples: bool) -> None:
    computing, recorder = Watching(), FakeRecorder()
    graphs = Graphs(computing, 8, recorder)
    buffers = StepBuffers(
        max_tokens=8, max_rows=8, block_size=4, device=torch.device("cpu"), is_recorded=True
    )

    first = graphs.run(buffers, 4, samples=samples)
    second = graphs.run(buffers, 4, samples=samples)
    third = graphs.run(buffers, 4, samples=samples)

    assert first is None  # it may never come again
    assert second is not None
    assert third is not None
    assert (third.tokens is not None) == samples
    assert recorder.events == ["run", "record", "replay"]
    run, record, *_ = computing.seen
    assert run == record


def test_few_rows_have_buckets_of_their_own_and_the_last_is_full() -> None:
    assert buckets(1) == [1]
    assert buckets(3) == [1, 2, 3]
    assert buckets(20) == [1, 2, 4, 8, 16, 20]
