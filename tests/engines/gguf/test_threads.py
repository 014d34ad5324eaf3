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


def test_what_was_given_up_in_company_is_tried_again_when_the_others_have_left() -> None:
    load = [8.0]
    tuner = ThreadTuner(2, start=1, load=lambda: load[0])
    crowded = [_step(tuner) for _ in range(50)]
    load[0] = 1.0  # this model's own thread
    free = [_step(tuner) for _ in range(200)]

    assert set(crowded) == {1}
    assert free[-1] == 2


def _step(tuner: ThreadTuner) -> int:
    """One step, which takes half as long with two threads."""
    threads = tuner.choose(1)
    tuner.measured(1, 0.01 / threads)
    return threads
