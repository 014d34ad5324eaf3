from pathlib import Path

from structlog.testing import capture_logs

from gateway.store import Bucket, Demand, open_store

BUDGET = Demand(bucket=Bucket(kind="window", key="budget", limit=1000, period="month"), fixed=300)
RATE = Demand(bucket=Bucket(kind="rate", key="rate", limit=600, burst=600), fixed=300)


async def test_a_budget_is_not_given_back_by_a_restart(tmp_path: Path) -> None:
    first = open_store("memory:", data_dir=tmp_path)
    async with first.running():
        await first.reserve("c1", [BUDGET, RATE])
        first.settle("c1", [BUDGET, RATE], [250, 250])

    second = open_store("memory:", data_dir=tmp_path)
    async with second.running():
        budget, rate = await second.peek([BUDGET, RATE])

    assert (budget.used, rate.used) == (250, 0)


async def test_a_store_without_budgets_writes_no_file(tmp_path: Path) -> None:
    store = open_store("memory:", data_dir=tmp_path)
    async with store.running():
        await store.reserve("c1", [RATE])

    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_cannot_be_read_is_logged_and_does_not_keep_the_gateway_down(
    tmp_path: Path,
) -> None:
    (tmp_path / "budgets.json").write_text('{"budget": "much"}')

    with capture_logs() as logs:
        async with open_store("memory:", data_dir=tmp_path).running():
            pass

    assert [entry["event"] for entry in logs] == ["budgets_not_read"]


async def test_a_budget_that_a_wrong_clock_wrote_does_not_count_after_a_restart(
    tmp_path: Path,
) -> None:
    (tmp_path / "budgets.json").write_text('{"budget": [30000, 1000, 64060588800000]}')

    store = open_store("memory:", data_dir=tmp_path)
    async with store.running():
        [budget] = await store.peek([BUDGET])

    assert (budget.fits, budget.used) == (True, 0)
