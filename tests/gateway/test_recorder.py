"""What is known of a call's tokens, however far its answer got."""

from engines.protocol import (
    Finished,
    FinishReason,
    GenerateRequest,
    Started,
    TextDelta,
    TokenLogprob,
    Usage,
)
from engines.wire import Relayed
from gateway.call import Call
from gateway.recorder import LONG_TOKEN, Recorder

REQUEST = GenerateRequest(id="req_1-0", model="chat-small", prompt="once upon a time")


def test_an_engines_own_numbers_replace_what_was_counted(call: Call) -> None:
    recorder = Recorder(call, REQUEST, 0)

    recorder.note(Started(prompt_tokens=4))
    recorder.note(TextDelta("a"))
    assert call.usage == Usage(prompt_tokens=4, completion_tokens=1)
    recorder.note(
        Finished(reason=FinishReason.LENGTH, usage=Usage(prompt_tokens=5, completion_tokens=3))
    )
    recorder.end()

    assert call.usage == Usage(prompt_tokens=5, completion_tokens=3)
    assert call.finish_reason is FinishReason.LENGTH


def test_an_engine_that_knows_nothing_leaves_what_was_counted(call: Call) -> None:
    recorder = Recorder(call, REQUEST, 0)

    recorder.note(Started(prompt_tokens=4))
    recorder.note(TextDelta("a"))
    recorder.note(Finished(reason=FinishReason.STOP, usage=Usage()))

    assert call.usage == Usage(prompt_tokens=4, completion_tokens=1)


def test_pieces_are_counted_by_what_is_known_of_them(call: Call) -> None:
    recorder = Recorder(call, REQUEST, 0)

    recorder.note(TextDelta("x" * LONG_TOKEN * 3))
    recorder.note(TextDelta("two", logprobs=(TokenLogprob(b"t", 0.0), TokenLogprob(b"wo", 0.0))))
    recorder.note(Relayed(b"data: {}\n\n", 5))
    recorder.note(Relayed(b"data: {}\n\n"))

    assert call.usage.completion_tokens == 3 + 2 + 5 + 1


def test_a_call_that_broke_off_pays_for_a_prompt_that_nobody_counted(call: Call) -> None:
    recorder = Recorder(call, REQUEST, 0)

    recorder.note(Started())
    assert call.usage.prompt_tokens == 0
    recorder.end()

    assert call.usage.prompt_tokens > 0


def test_a_call_whose_engine_never_began_pays_for_nothing(call: Call) -> None:
    Recorder(call, REQUEST, 0).end()

    assert call.usage == Usage()


def test_each_sequence_has_its_own_count_and_the_first_output_is_the_calls(call: Call) -> None:
    first, second = Recorder(call, REQUEST, 0), Recorder(call, REQUEST, 1)

    second.note(Started(prompt_tokens=2))
    assert call.first_output_at is None
    second.note(TextDelta("a"))
    began_at = call.first_output_at
    first.note(TextDelta("b"))

    assert [tally.completion_tokens for tally in call.tallies] == [1, 1]
    assert began_at is not None
    assert call.first_output_at == began_at
