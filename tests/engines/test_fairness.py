from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engines.fairness import FairQueue


def served(queue: FairQueue[str], num: int, cost: float = 10.0, **weights: float) -> list[str]:
    order: list[str] = []
    for _ in range(num):
        item = queue.pop()
        if item is None:
            break
        owner = item[0]
        queue.started(owner)
        queue.charge(owner, cost, weight=weights.get(owner, 1.0))
        queue.stopped(owner)
        order.append(item)
    return order


def test_items_of_one_owner_keep_their_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3"):
        queue.push(item, owner="a")

    assert served(queue, 3) == ["a1", "a2", "a3"]


def test_a_burst_of_one_owner_does_not_make_another_wait_for_its_end() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.push(f"a{number}", owner="a")
    queue.push("b0", owner="b")

    assert "b0" in served(queue, 2)


def test_an_owner_of_weight_three_is_served_three_times_as_much() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.push(f"a{number}", owner="a")
        queue.push(f"b{number}", owner="b")

    counts = Counter(item[0] for item in served(queue, 80, a=3.0, b=1.0))

    assert counts == {"a": 60, "b": 20}


def test_a_lower_priority_number_goes_first_across_owners() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a1", owner="a", priority=1)
    queue.push("b0", owner="b", priority=0)

    assert served(queue, 2) == ["b0", "a1"]


def test_idleness_is_not_saved_up() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(60):
        queue.push(f"a{number}", owner="a")
    served(queue, 30)
    for number in range(30):
        queue.push(f"b{number}", owner="b")

    counts = Counter(item[0] for item in served(queue, 20))

    assert abs(counts["a"] - counts["b"]) <= 1


def test_an_owner_whose_next_item_cannot_run_is_passed_over() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a-too-long", owner="a")
    queue.push("b0", owner="b")

    assert queue.pop(lambda item: item != "a-too-long") == "b0"
    assert queue.pop(lambda item: item != "a-too-long") is None
    assert len(queue) == 1


def test_an_item_that_was_put_back_is_next_again() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a1", owner="a")
    queue.push("a2", owner="a")
    item = queue.pop()
    assert item is not None

    queue.push_back(item, owner="a")

    assert served(queue, 2) == ["a1", "a2"]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc"), st.integers(0, 2)),
        st.tuples(st.just("pop"), st.just("a"), st.just(0)),
        st.tuples(st.just("remove"), st.sampled_from("abc"), st.integers(0, 2)),
    ),
    max_size=80,
)


@given(operations)
def test_nothing_is_lost_and_nothing_comes_twice(steps: list[tuple[str, str, int]]) -> None:
    queue: FairQueue[tuple[str, int, int]] = FairQueue()
    inside: set[tuple[str, int, int]] = set()
    for number, (step, owner, priority) in enumerate(steps):
        if step == "push":
            item = (owner, priority, number)
            queue.push(item, owner=owner, priority=priority)
            inside.add(item)
        elif step == "pop":
            popped = queue.pop()
            assert (popped is None) == (not inside)
            if popped is not None:
                inside.remove(popped)
                queue.charge(popped[0], 1.0)
        else:
            victim = next((i for i in inside if i[:2] == (owner, priority)), ("-", -1, -1))
            assert queue.remove(victim, owner=owner, priority=priority) == (victim in inside)
            inside.discard(victim)
        assert set(queue) == inside
        assert len(queue) == len(inside)


def test_peeking_shows_who_is_next_and_takes_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    assert queue.peek() is None
    queue.push("a1", owner="a", priority=1)
    queue.push("b0", owner="b", priority=0)

    assert queue.peek() == "b0"
    assert queue.peek(lambda item: item != "b0") == "a1"
    assert queue.peek(lambda item: False) is None
    assert len(queue) == 2
    assert queue.pop() == "b0"


def test_an_owner_that_only_ever_gave_up_leaves_no_account_behind() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a1", owner="a")

    queue.remove("a1", owner="a")

    assert queue._counters == {}
