from datetime import datetime

import pytest

from gateway.api.ollama.durations import keep_alive_seconds, nanoseconds, now, rfc3339
from gateway.errors import BadRequest


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        ("", None),
        (0, 0),
        ("0", 0),
        ("0s", 0),
        (300, 300),
        (2.5, 2.5),
        ("300", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("+10s", 10),
        (" 24h ", 86_400),
        (-1, -1),
        (-60, -1),
        ("-1", -1),
        ("-1m", -1),
        (1e300, -1),
    ],
)
def test_a_keep_alive_is_seconds_or_a_duration_of_go(given: object, seconds: float | None) -> None:
    found = keep_alive_seconds(given)  # type: ignore[arg-type]

    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("given", ["soon", "5 m", "m5", "5mm", "1d", "nan", "5m" * 60, "٥m"])
def test_what_is_no_duration_is_refused(given: str) -> None:
    with pytest.raises(BadRequest, match="keep_alive is"):
        keep_alive_seconds(given)


def test_moments_are_rfc_3339_in_utc() -> None:
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert rfc3339(1_700_000_000.0) == "2023-11-14T22:13:20.000000Z"
    assert datetime.fromisoformat(now()).utcoffset() is not None


def test_never_is_a_moment_that_clients_can_read() -> None:
    assert datetime.fromisoformat(rfc3339(None)).year > 2300


def test_no_duration_is_negative() -> None:
    assert nanoseconds(1.5) == 1_500_000_000
    assert nanoseconds(-0.1) == 0
