import pytest

from gateway.limits import Rule, Rules, go_duration, limit_headers
from gateway.store import Bucket, Fill


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (0, "0s"),
        (-5, "0s"),
        (12, "12ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (90_061_050, "25h1m1.05s"),
    ],
)
def test_a_reset_is_a_duration_as_go_prints_it(milliseconds: int, said: str) -> None:
    assert go_duration(milliseconds) == said


def rule(table: str, counts: str, *, kind: str = "rate", enforced: bool = True) -> Rule:
    bucket = Bucket(kind=kind, key=table, limit=60, burst=10, enforced=enforced)  # type: ignore[arg-type]
    return Rule(table=table, field=f"{counts}_x", whose="-", counts=counts, bucket=bucket)  # type: ignore[arg-type]


def test_of_several_limits_the_tightest_is_told() -> None:
    counted = [("a", "tokens"), ("b", "input"), ("c", "requests"), ("d", "output")]
    rules = Rules(rule(table, counts) for table, counts in counted)
    fills = [Fill(True, 0, left, 0, 1000) for left in (9, 2, 7, 5)]

    assert limit_headers(rules, fills) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "7",
        "x-ratelimit-reset-requests": "1s",
        "x-penstock-limit-requests": "c.requests_x",
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "2",
        "x-ratelimit-reset-tokens": "1s",
        "x-penstock-limit-tokens": "b.input_x",
    }


def test_budgets_calls_at_once_and_shadows_are_not_told() -> None:
    rules = Rules(
        [
            rule("a", "tokens", kind="window"),
            rule("b", "calls", kind="leases"),
            rule("c", "requests", enforced=False),
        ]
    )

    assert limit_headers(rules, [Fill(True, 1, 1, 0, 1)] * 3) == {}


def test_a_table_of_any_name_makes_a_header_that_can_be_sent() -> None:
    headers = limit_headers(Rules([rule("größe 日本", "tokens")]), [Fill(True, 0, 1, 0, 0)])

    assert headers["x-penstock-limit-tokens"].isascii()
