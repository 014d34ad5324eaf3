import pytest

from gateway.cli.progress import PlainLines
from tests.fakes import FakeClock


class Job:
    """A download that a test moves on."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.said: list[str] = []
        self._lines = PlainLines(self.said.append, self.clock)

    def is_at(self, done: int, *, after: float, name: str = "pulling a") -> None:
        self.clock.advance(after)
        self._lines.show({"status": name, "total": 100_000_000, "completed": done})

    def says(self, status: str) -> None:
        self._lines.show({"status": status})


@pytest.fixture
def job() -> Job:
    return Job()


def test_a_line_now_and_then_has_speed_and_time_left(job: Job) -> None:
    job.is_at(0, after=0)
    for second in range(1, 11):
        job.is_at(second * 2_000_000, after=1)

    assert job.said == [
        "pulling a: 100 MB",
        "pulling a: 10%, 2.0 MB/s, 45s left",
        "pulling a: 20%, 2.0 MB/s, 40s left",
    ]


def test_what_an_earlier_pull_has_left_makes_nothing_faster(job: Job) -> None:
    job.is_at(50_000_000, after=0)
    job.is_at(60_000_000, after=10)

    assert job.said == [
        "pulling a: 100 MB, 50.0 MB of it are there",
        "pulling a: 60%, 1.0 MB/s, 40s left",
    ]


def test_files_side_by_side_keep_a_pace_each_and_end_once(job: Job) -> None:
    for name in ("pulling a", "pulling b"):
        job.is_at(0, after=0, name=name)
    for _ in range(2):
        job.is_at(100_000_000, after=1)
    job.is_at(100_000_000, after=1, name="pulling b")

    assert job.said == [
        "pulling a: 100 MB", "pulling b: 100 MB", "pulling a: done", "pulling b: done",
    ]  # fmt: skip


def test_a_stall_has_no_time_left(job: Job) -> None:
    job.is_at(0, after=0)
    job.is_at(0, after=6)

    assert job.said[-1] == "pulling a: 0%, 0 B/s"


def test_a_status_is_said_once(job: Job) -> None:
    for status in ("verifying", "verifying", "writing"):
        job.says(status)

    assert job.said == ["verifying", "writing"]
