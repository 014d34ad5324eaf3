"""The bench's own arithmetic, with an engine whose speed is known."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from engines.protocol import GenerateRequest
from gateway.bench.roofline import Machine, shape_of
from gateway.bench.workloads.nano import OUTPUT_TOKENS
from gateway.hooks import installed_plugins
from gateway.policy.files import FILES
from tests.fakes import ScriptedEngine, Step
from tests.gpu_bench.figures import PREFILL_TOKENS, Figures, measure
from tests.gpu_bench.one import SHAPES, Outcome, run
from tests.gpu_bench.our_engine import NotMeasured, in_process, write_policy
from tests.gpu_bench.table import nano_least, notes_of, rows_of, shapes_there_are

H100 = Machine(bytes_per_second=3.0e12, flops_per_second=8e14, source="measured")


class ModelledSubject:
    """Takes a second to begin, 1 ms for each prompt token, and `0.01 + batch / 1000` a step."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, float]] = []
        self.prompts: set[tuple[int, ...]] = set()

    def seconds_for(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], *, temperature: float
    ) -> float:
        self.asked.append((len(prompts), sum(lengths), temperature))
        self.prompts.update(tuple(prompt) for prompt in prompts)
        step = 0.01 + len(prompts) / 1000
        return 1.0 + sum(map(len, prompts)) * 0.001 + (max(lengths) - 1) * step


def test_a_decode_step_is_measured_free_of_start_and_prefill() -> None:
    subject = ModelledSubject()

    figures = measure(subject, lambda line: None)

    for batch, seconds in figures.decode_seconds.items():
        assert seconds == pytest.approx(0.01 + batch / 1000)
    assert figures.prefill_seconds == pytest.approx(1.0 + PREFILL_TOKENS * 0.001)
    assert figures.nano_seconds == pytest.approx(1.0 + 142.827 + 1023 * 0.266, abs=0.6)
    assert subject.asked[-1] == (256, OUTPUT_TOKENS, 0.6)


def test_no_prompt_is_asked_twice_so_that_no_cache_helps() -> None:
    subject = ModelledSubject()

    measure(subject, lambda line: None, batches=[2])

    assert len(subject.prompts) == sum(batch for batch, _, _ in subject.asked)


def test_the_shapes_are_those_of_the_published_models() -> None:
    assert shapes_there_are() == ["llama-8b", "qwen3-0.6b"]
    llama, qwen = (shape_of(SHAPES / name) for name in shapes_there_are())
    assert llama.weights == pytest.approx(7.50e9, rel=0.001)
    assert qwen.weights == pytest.approx(0.596e9, rel=0.001)
    assert nano_least(llama, H100) == pytest.approx(12.9, abs=0.1)


def test_the_table_gives_each_figures_part_of_the_roofline() -> None:
    figures = Figures(
        decode_seconds={1: 0.0101, 256: 0.0329}, prefill_seconds=0.0742, nano_seconds=25.8,
        start_seconds=12.0,
    )  # fmt: skip

    rows = list(rows_of(figures, shape_of(SHAPES / "llama-8b"), H100))

    assert [row[2] for row in rows] == ["50%", "50%", "50%", "50%", ""]
    assert rows[1][1] == "32.90 ms, 7,781 tok/s"


def test_what_was_not_measured_says_why_and_http_says_what_it_costs() -> None:
    fast = Figures(decode_seconds={}, prefill_seconds=None, nano_seconds=9.0, start_seconds=None)
    slow = msgspec.structs.replace(fast, nano_seconds=10.0)
    outcomes = [
        Outcome(engine="paged", shape="llama-8b", figures=fast),
        Outcome(engine="paged over HTTP", shape="llama-8b", figures=slow),
        Outcome(engine="vllm", shape="llama-8b", problem="not installed"),
    ]

    notes = "\n".join(notes_of(outcomes, H100))

    assert "3.00 TB/s and 800 TFLOP/s bf16" in notes
    assert "llama-8b, vllm: not measured: not installed" in notes
    assert "HTTP costs 10.0% of the nano workload's throughput" in notes


def words(request: GenerateRequest) -> list[Step]:
    return [" word"] * (request.max_tokens or 1)


def test_an_engine_is_driven_with_every_prompt_at_once() -> None:
    engine = ScriptedEngine(words)

    with in_process(lambda: engine) as subject:
        seconds = subject.seconds_for([[1, 2], [3]], [4, 5], temperature=0.6)

    assert seconds > 0
    assert [list(request.prompt or ()) for request in engine.requests] == [[1, 2], [3]]
    assert all(request.sampling.ignore_eos for request in engine.requests)
    assert {request.sampling.temperature for request in engine.requests} == {0.6}


def test_answers_that_fall_short_give_no_figure() -> None:
    with in_process(lambda: ScriptedEngine(["one"])) as subject:
        with pytest.raises(NotMeasured, match="1 tokens came where 9 were asked for"):
            subject.seconds_for([[1]], [9], temperature=0.0)
        with pytest.raises(NotMeasured, match=r"1 prompts failed: .*context"):
            subject.seconds_for([[1] * 200], [1], temperature=0.0)


def test_an_engine_that_is_not_there_is_told_and_the_rest_goes_on() -> None:
    outcome = run("abacus", "llama-8b", {}, [1])

    assert outcome.figures is None
    assert outcome.problem is not None
    assert "there is no engine 'abacus'" in outcome.problem


def test_the_policy_for_http_has_every_file_and_plugins_that_exist(tmp_path: Path) -> None:
    directory = write_policy(tmp_path / "policy", SHAPES / "llama-8b", {"max_sequences": 256})

    assert {path.name for path in directory.iterdir()} == set(FILES)
    text = (directory / "engines.toml").read_text()
    assert 'kind = "paged"' in text
    assert "max_sequences = 256" in text
    assert "anonymous" in installed_plugins()
