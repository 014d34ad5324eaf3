import os

import pytest

from engines.gguf.config import GgufConfig
from engines.gguf.core_threads import CoreThreads
from engines.gguf.cores import may_choose_cores, stay_on, usable_cores
from engines.gguf.threads import threads_for


@pytest.fixture
def without_affinities(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system like macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert usable_cores() == sorted(os.sched_getaffinity(0))


@pytest.mark.usefixtures("without_affinities")
def test_where_there_are_no_affinities_every_core_counts_and_nothing_is_bound() -> None:
    stay_on([0])

    assert usable_cores() == list(range(os.cpu_count() or 1))
    assert not may_choose_cores()
    assert threads_for(GgufConfig()).choose(1) == (os.cpu_count() or 1)


@pytest.mark.usefixtures("without_affinities")
def test_where_there_are_no_affinities_llama_cpp_makes_its_own_threads() -> None:
    cores = CoreThreads()

    assert not cores._is_possible
    cores.close()
