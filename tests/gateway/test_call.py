from engines.protocol import Usage
from gateway.call import Call


def count(call: Call, *sequences: tuple[int, int, int]) -> Usage:
    for index, (prompt, cached, output) in enumerate(sequences):
        call.tally(index).set(
            Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=output)
        )
    return call.usage


def test_choices_share_their_prompt_so_it_counts_once(call: Call) -> None:
    call.choices_per_prompt = 3

    usage = count(call, (10, 0, 1), (10, 10, 2), (10, 10, 3))

    assert usage == Usage(prompt_tokens=10, cached_tokens=0, completion_tokens=6)


def test_every_prompt_of_a_call_counts(call: Call) -> None:
    call.choices_per_prompt = 2

    usage = count(call, (10, 4, 1), (10, 9, 1), (7, 0, 1), (7, 7, 1))

    assert usage == Usage(prompt_tokens=17, cached_tokens=4, completion_tokens=4)


def test_a_call_that_was_broken_off_has_used_what_its_sequences_have_got(call: Call) -> None:
    call.choices_per_prompt = 2
    call.tally(1).prompt_tokens = 5
    call.tally(1).completion_tokens = 3

    assert call.usage == Usage(prompt_tokens=5, completion_tokens=3)


def test_a_call_that_did_not_begin_has_used_nothing(call: Call) -> None:
    assert call.usage == Usage()
