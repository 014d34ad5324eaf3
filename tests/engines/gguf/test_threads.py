from engines.gguf.threads import TRY_SHARE, ThreadTuner, idle_cores


def run(tuner: ThreadTuner, cost: dict[int, float], *, steps: int, rows: int = 1) -> list[int]:
    """Threads used by each of so many steps on a machine where a row costs so many seconds."""
    used: list[int] = []
    for _ in range(steps):
        threads = tuner.choose(rows)
        tuner.measured(rows, cost[threads] * rows)
        used.append(threads)
    return used


def test_the_fastest_number_is_found() -> None:
    tuner = ThreadTuner(8)

    used = run(tuner, {1: 4.0, 2: 2.0, 4: 1.0, 8: 3.0}, steps=3000)

    assert used[0] == 8
    assert set(used[-10:]) == {4}


def test_trying_costs_no_more_than_its_share() -> None:
    cost = {1: 1.0, 2: 40.0}
    tuner = ThreadTuner(2, start=1)

    used = run(tuner, cost, steps=50_000)

    assert used.count(2) > 0
    assert sum(cost[threads] - 1.0 for threads in used) <= 2 * TRY_SHARE * len(used)


def test_when_neighbours_come_and_go_the_choice_follows() -> None:
    tuner = ThreadTuner(2)

    quiet = run(tuner, {1: 2.0, 2: 1.0}, steps=1000)
    crowded = run(tuner, {1: 2.5, 2: 100.0}, steps=1000)
    quiet_again = run(tuner, {1: 2.0, 2: 1.0}, steps=20_000)

    assert quiet[-1] == 2
    assert crowded.count(2) <= 5
    assert quiet_again[-1] == 2


def test_sizes_of_steps_are_measured_apart() -> None:
    tuner = ThreadTuner(2)

    small = run(tuner, {1: 1.0, 2: 1.5}, steps=2000, rows=1)
    large = run(tuner, {1: 1.0, 2: 0.5}, steps=2000, rows=512)

    assert (small[-1], large[-1]) == (1, 2)


def test_it_starts_with_the_cores_that_are_idle() -> None:
    assert idle_cores(8, 3.2) == 5
    assert idle_cores(2, 7.0) == 1
    assert ThreadTuner(8, start=5).choose(1) == 4
    assert ThreadTuner(6).choose(1) == 6
