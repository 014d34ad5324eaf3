import json

import pytest

from gateway.bench.question import Answer, AskFailed
from gateway.bench.stream import AnswerStream


def event(**chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chat(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": delta, "finish_reason": finish_reason}])


def usage(completion_tokens: int, **more: object) -> bytes:
    told = {"prompt_tokens": 5, "completion_tokens": completion_tokens, **more}
    return event(choices=[], usage=told)


DONE = b"data: [DONE]\n\n"


def read(*pieces: bytes) -> Answer:
    """What a stream gives whose reads arrived at the seconds 1, 2, 3 and so on."""
    stream = AnswerStream()
    for second, piece in enumerate(pieces, start=1):
        stream.feed(piece, float(second))
    return stream.answer(float(len(pieces)))


def test_pieces_are_timed_and_tokens_are_those_that_usage_tells() -> None:
    answer = read(
        chat({"role": "assistant", "content": ""}),
        chat({"content": "one two"}),
        chat({"content": " three"}),
        chat({}, "stop"),
        usage(3, prompt_tokens_details={"cached_tokens": 2}),
        DONE,
    )

    assert answer.text == "one two three"
    assert answer.arrivals == [2.0, 3.0]
    assert answer.finished_at == 6.0
    assert (answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens) == (5, 2, 3)
    assert answer.tokens_were_told


def test_events_that_arrive_together_have_one_time_and_split_ones_their_last() -> None:
    whole = chat({"content": "c"})
    answer = read(
        chat({"content": "a"}) + chat({"content": "b"}),
        whole[:20],
        whole[20:] + chat({}, "stop") + usage(3) + DONE,
    )

    assert answer.arrivals == [1.0, 1.0, 3.0]
    assert answer.text == "abc"


def test_an_event_cut_between_any_two_bytes_is_read_the_same() -> None:
    data = chat({"content": "é"}) + chat({}, "stop") + usage(1) + DONE

    for at in range(len(data)):
        assert read(data[:at], data[at:]).text == "é"


def test_completions_thinking_and_tool_calls_are_output_too() -> None:
    answer = read(
        event(choices=[{"text": "a", "index": 0, "finish_reason": None}]),
        chat({"reasoning_content": "hm"}),
        chat({"reasoning": "hm"}),
        chat({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}),
        chat({}, "tool_calls") + usage(9) + DONE,
    )

    assert answer.arrivals == [1.0, 2.0, 3.0, 4.0]
    assert answer.completion_tokens == 9


def test_usage_told_with_every_chunk_counts_once() -> None:
    answer = read(
        event(
            choices=[{"delta": {"content": "a"}}],
            usage={"prompt_tokens": 5, "completion_tokens": 1},
        ),
        event(
            choices=[{"delta": {"content": "b"}, "finish_reason": "stop"}],
            usage={"prompt_tokens": 5, "completion_tokens": 2},
        ),
        DONE,
    )

    assert answer.completion_tokens == 2


def test_without_usage_pieces_are_counted_and_the_answer_says_so() -> None:
    answer = read(chat({"content": "a"}), chat({"content": "b"}, "stop"), DONE)

    assert answer.completion_tokens == 2
    assert not answer.tokens_were_told


def test_line_ends_pings_comments_and_event_names_do_not_matter() -> None:
    data = b": ping\r\n\r\nevent: message\r\n" + chat({"content": "a"}, "stop") + usage(1) + DONE

    assert read(data.replace(b"\n\n", b"\r\n\r\n")).text == "a"


def test_tokens_that_show_as_no_text_are_first_seen_at_the_end() -> None:
    answer = read(chat({"content": ""}), chat({}, "length"), usage(4) + DONE)

    assert answer.completion_tokens == 4
    assert answer.arrivals == [3.0]


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([chat({"content": "a"}), usage(1)], "cut_off"),
        ([b""], "cut_off"),
        ([chat({}, "stop"), usage(0), DONE], "empty"),
        ([DONE], "empty"),
        ([event(error={"message": "it died", "code": "unavailable"})], "unavailable"),
        ([event(error={"message": "it died", "type": "server_error"})], "server_error"),
        ([event(error="it died")], "error_event"),
        ([b"data: {oops\n\n"], "malformed"),
        ([event(choices="none")], "malformed"),
    ],
)
def test_an_answer_that_is_not_whole_is_a_failure(pieces: list[bytes], kind: str) -> None:
    with pytest.raises(AskFailed) as caught:
        read(*pieces)

    assert caught.value.kind == kind
    assert caught.value.message
