from gateway.keys.short_memory import ShortMemory


def test_a_short_memory_is_bounded_and_forgets_the_oldest() -> None:
    memory = ShortMemory[int](3, 5.0)
    for number in range(5):
        memory.put(bytes([number]), number, now=float(number))

    assert len(memory) == 3
    assert [memory.get(bytes([n]), 5.0) for n in range(5)] == [None, None, 2, 3, 4]
    assert memory.get(bytes([2]), 7.0) is None
    assert len(memory) == 2
