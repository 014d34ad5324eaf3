from random import Random

from engines.gguf.threads import TRY_SHARE, ThreadTuner, runnable_threads


def run(tuner: ThreadTuner, cost: dict[int, float], *, steps: int, rows: int = 1) -> list[int]:
    """Threads used by each of so many steps on a machine where a row costs so many seconds."""
    used: list[int] = []
    for _ in range(steps):
        threads = tuner.choose(rows)
        tuner.measured(rows, cost[threads] * rows)
        used.append(threads)
    return used


def test_the_fastest_number_is_found() -> None:
    tuner = ThreadTuner(8, idle_cores=lambda: 8)

    used = run(tuner, {1: 4.0, 2: 2.0, 4: 1.0, 8: 3.0}, steps=3000)

    assert used[0] == 8
    assert set(used[-10:]) == {4}


def test_on_cores_that_others_want_every_number_is_tried_at_the_start() -> None:
    tuner = ThreadTuner(8, idle_cores=lambda: 3)

    used = run(tuner, {1: 1.0, 2: 20.0, 4: 20.0, 8: 30.0}, steps=20)

    assert list(dict.fromkeys(used)) == [8, 4, 2, 1]
    assert used[10:].count(1) >= 8


def test_a_slow_first_step_changes_nothing() -> None:
    tuner = ThreadTuner(2, idle_cores=lambda: 0)
    tuner.choose(1)
    tuner.measured(1, 5.0)

    used = run(tuner, {1: 1.3, 2: 1.0}, steps=100)

    assert used.count(1) <= 5


def test_on_idle_cores_no_step_is_lost_at_the_start() -> None:
    tuner = ThreadTuner(8, idle_cores=lambda: 8)

    assert set(run(tuner, {1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0}, steps=40)) == {8}


def test_trying_costs_no_more_than_its_share() -> None:
    cost = {1: 1.0, 2: 40.0}
    tuner = ThreadTuner(2)

    used = run(tuner, cost, steps=50_000)

    later = used[2:]
    assert later.count(2) > 0
    assert sum(cost[threads] - 1.0 for threads in later) <= 2 * TRY_SHARE * len(later)


def test_a_step_that_others_wait_for_is_not_tried_with() -> None:
    tuner = ThreadTuner(2)

    used: list[int] = []
    for _ in range(500):
        used.append(tuner.choose(300, may_try=False))
        tuner.measured(300, 1.0)

    assert set(used) == {2}


def test_when_neighbours_come_and_go_the_choice_follows() -> None:
    idle = [2]
    tuner = ThreadTuner(2, idle_cores=lambda: idle[0])

    quiet = run(tuner, {1: 2.0, 2: 1.0}, steps=1000)
    idle[0] = 0
    crowded = run(tuner, {1: 2.5, 2: 100.0}, steps=1000)
    idle[0] = 2
    quiet_again = run(tuner, {1: 2.0, 2: 1.0}, steps=200)

    assert quiet[-1] == 2
    assert crowded.count(2) <= 5
    assert quiet_again[-1] == 2


def test_slow_steps_now_and_then_do_not_change_the_number() -> None:
    random = Random(7)
    tuner = ThreadTuner(2, idle_cores=lambda: 0)

    used: list[int] = []
    for _ in range(4000):
        used.append(tuner.choose(1))
        slowness = random.choice([1.0, 1.0, 1.0, 1.1, 1.2, 1.5])
        tuner.measured(1, slowness * {1: 1.2, 2: 1.0}[used[-1]])

    assert used.count(1) < 0.08 * len(used)


def test_the_wins_of_one_number_are_none_of_another() -> None:
    tuner = ThreadTuner(4, idle_cores=lambda: 0)
    assert run(tuner, {1: 1.3, 2: 1.0, 4: 1.3}, steps=3000)[-1] == 2

    def wins(threads: int, *, seconds: float) -> None:
        cost = {1: 1.3, 2: 1.0, 4: 1.3, threads: seconds}
        while run(tuner, cost, steps=1) != [threads]:
            pass

    wins(4, seconds=0.8)
    wins(4, seconds=0.8)
    for _ in range(5):  # the best is about as fast, for as long as it takes to be believed
        tuner.choose(1, may_try=False)
        tuner.measured(1, 0.8)
    wins(1, seconds=0.6)

    assert tuner.choose(1, may_try=False) == 2


def test_neighbours_that_are_never_seen_to_leave_are_found_to_have_left() -> None:
    tuner = ThreadTuner(2)

    run(tuner, {1: 2.5, 2: 100.0}, steps=100)

    assert run(tuner, {1: 2.0, 2: 1.0}, steps=20_000)[-1] == 2


def test_sizes_of_steps_are_measured_apart() -> None:
    tuner = ThreadTuner(2)

    small = run(tuner, {1: 1.0, 2: 1.5}, steps=2000, rows=1)
    large = run(tuner, {1: 1.0, 2: 0.5}, steps=2000, rows=512)

    assert (small[-1], large[-1]) == (1, 2)


def test_it_starts_with_a_thread_for_each_core() -> None:
    assert ThreadTuner(6).choose(1) == 6


def test_who_computes_now_counts_and_not_who_did_in_the_last_minute() -> None:
    assert runnable_threads("7.90 4.10 2.20 1/512 4242\n") == 1
