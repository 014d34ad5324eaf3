import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.gguf import core_threads, native
from engines.gguf.core_threads import CoreThreads
from engines.gguf.runner import Row, Runner, Shape
from tests.gguf_files import write_gguf

SHAPE = Shape(num_slots=1, context_tokens=64, pool_tokens=64, exact=False, max_batch_tokens=64)
CORES = sorted(os.sched_getaffinity(0))

needs_cores = pytest.mark.skipif(
    len(CORES) < 2 or native.waits_in_openmp(), reason="needs two cores and ggml's own threads"
)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(write_gguf(tmp_path / "random.gguf", layers=1))
    runner.open_cache(SHAPE)
    yield runner
    runner.close()


def cores_of_threads() -> set[frozenset[int]]:
    """Where each thread of this process may run."""
    return {
        frozenset(os.sched_getaffinity(int(task.name)))
        for task in Path("/proc/self/task").iterdir()
    }


def decode(runner: Runner, position: int) -> None:
    runner.decode([Row(7, position, 0, wants_logits=True)])


@needs_cores
def test_a_thread_for_each_core_stays_on_it_and_fewer_are_left_to_the_kernel(
    runner: Runner,
) -> None:
    runner.set_threads(len(CORES))
    decode(runner, 0)
    apart = cores_of_threads()

    runner.set_threads(1)
    decode(runner, 1)

    assert {frozenset({core}) for core in CORES} <= apart
    assert os.sched_getaffinity(0) == set(CORES)


@needs_cores
def test_the_thread_that_closes_may_run_anywhere_again(runner: Runner) -> None:
    runner.set_threads(len(CORES))
    decode(runner, 0)
    assert os.sched_getaffinity(0) == {CORES[-1]}

    runner.close()

    assert os.sched_getaffinity(0) == set(CORES)


@needs_cores
def test_the_pool_is_made_once_and_serves_every_context(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[int]] = []
    pool_on = core_threads._pool_on

    def noted(cores: list[int]) -> object:
        made.append(cores)
        return pool_on(cores)

    monkeypatch.setattr(core_threads, "_pool_on", noted)
    shape = SHAPE._replace(exact=False)
    for number in (len(CORES), 1, len(CORES)):
        runner.set_threads(number)
        decode(runner, 0)
        runner.clear(0)
        runner.embed([[7, 8]], shape, "mean")

    assert made == [CORES]


def test_a_library_whose_parameters_lie_elsewhere_gets_no_pool() -> None:
    assert core_threads._checked_parameters(lambda parameters, number: None) is None


def test_parameters_of_the_pinned_release_are_where_they_are_expected() -> None:
    initialize = native.ggml().ggml_threadpool_params_init

    assert core_threads._checked_parameters(initialize) is not None


def test_one_core_needs_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {CORES[0]})

    assert not CoreThreads()._is_possible
