from datetime import UTC, datetime

import pytest

from gateway.cli.quantities import (
    bytes_text,
    is_duration,
    number_text,
    seconds_text,
    since_text,
)

NOW = datetime(2026, 5, 10, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (133_000_000, "133 MB"), (4.7e9, "4.7 GB"),
     (2e12, "2.0 TB")],
)  # fmt: skip
def test_sizes_count_in_thousands(count: float, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0412, "41.2ms"), (3.25, "3.25s"), (59, "59s"), (250, "4m10s"), (3900, "1h05m")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-05-10T12:04:00Z", "4 minutes from now"),
        ("2026-05-07T12:00:00.123456789Z", "3 days ago"),
        ("2026-05-10T13:00:00+02:00", "1 hour ago"),
        ("2026-05-10T12:00:00Z", "now"),
        ("2318-01-01T00:00:00Z", "forever"),
        ("0001-01-01T00:00:00Z", "-"),
        ("yesterday", "-"),
        (None, "-"),
    ],
)
def test_times_are_told_from_now(moment: str | None, text: str) -> None:
    assert since_text(moment, NOW) == text


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("10m", True), ("1h30m", True), ("-1", True), ("0", True), ("0.5s", True), ("10", True),
     ("m", False), ("10 m", False), ("tomorrow", False)],
)  # fmt: skip
def test_a_duration_is_told_from_other_words(text: str, is_one: bool) -> None:
    assert is_duration(text) is is_one


def test_numbers_of_parameters_are_short() -> None:
    assert [number_text(n) for n in (8e9, 124.7e6, 1500, 12)] == ["8.0B", "124.7M", "1.5K", "12"]
