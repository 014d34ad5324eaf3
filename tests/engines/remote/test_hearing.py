import msgspec
import pytest

from engines.errors import EngineError, Unavailable
from engines.protocol import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from engines.remote.answers import Names
from engines.remote.hearing import HeardAnswer
from tests.engines.remote.conftest import asking
from tests.upstream import CHAT, DONE, USAGE, chunk, event

NAMES = Names(model="up", public_model=None, with_words=True, relay=False)


def heard(*pieces: bytes, **fields: object) -> list[Event]:
    answer = HeardAnswer(asking(**fields), NAMES, 10_000)
    events = [event for piece in pieces for event in answer.feed(piece)]
    return [*events, *answer.end()]


def delta(**fields: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields}]})


def test_text_and_thinking_are_told_apart() -> None:
    events = heard(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(reasoning="so"),
        delta(content="yes"),
        delta(refusal="no"),
        chunk(),
        USAGE,
        DONE,
    )

    assert events == [
        ReasoningDelta("hm"),
        ReasoningDelta("so"),
        TextDelta("yes"),
        TextDelta("no"),
        Finished(reason=FinishReason.STOP, usage=Usage(prompt_tokens=7, completion_tokens=2)),
    ]


def test_a_tool_call_is_named_once_and_first() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": '{"a"'}}
    last = {"index": 0, "function": {"arguments": ":1}"}}
    nameless = {"index": 1, "function": {"name": "g"}}

    events = heard(*(delta(tool_calls=[each]) for each in (call, more, last, nameless)), DONE)

    assert events[:3] == [
        ToolCallDelta(index=0, id="call_1", name="f"),
        ToolCallDelta(index=0, arguments='{"a"'),
        ToolCallDelta(index=0, arguments=":1}"),
    ]
    assert events[3] == ToolCallDelta(index=1, id="call_req_1-0_1", name="g")


def test_completions_say_text_in_another_place() -> None:
    events = heard(
        event({"choices": [{"text": "once", "index": 0, "logprobs": {
            "tokens": ["on", "ce"], "token_logprobs": [-1.0, None],
            "top_logprobs": [{"on": -1.0, "off": -2.0}, None]}}]}),
        event({"choices": [{"text": "", "finish_reason": "length", "stop_reason": "###"}]}),
        prompt="x",
    )  # fmt: skip

    assert events[0] == TextDelta(
        "once",
        [
            TokenLogprob(b"on", -1.0, [TopLogprob(b"on", -1.0), TopLogprob(b"off", -2.0)]),
            TokenLogprob(b"ce", 0.0, []),
        ],
    )
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.stop) == (FinishReason.LENGTH, "###")


def test_chats_logprobs_keep_their_bytes() -> None:
    entry = {"token": "\ufffd", "logprob": -0.5, "bytes": [240, 159],
             "top_logprobs": [{"token": "a", "logprob": -1.5, "bytes": None}]}  # fmt: skip

    events = heard(
        event({"choices": [{"delta": {"content": "?"}, "logprobs": {"content": [entry]}}]}), DONE
    )

    assert events[0] == TextDelta("?", [TokenLogprob(b"\xf0\x9f", -0.5, [TopLogprob(b"a", -1.5)])])


def test_without_counts_they_are_guessed() -> None:
    finished = heard(delta(content="a"), delta(content="b"), DONE, text="x" * 8)[-1]

    assert isinstance(finished, Finished)
    assert finished.usage == Usage(prompt_tokens=2, completion_tokens=2, is_estimate=True)


@pytest.mark.parametrize("data", [b"{", b"5", b'{"choices":5}', b'{"choices":[{"delta":5}]}'])
def test_what_is_not_a_chunk_is_no_answer(data: bytes) -> None:
    with pytest.raises(Unavailable):
        heard(b"data: " + data + b"\n\n")


def test_a_stream_that_broke_off_did_not_end_well() -> None:
    with pytest.raises(Unavailable, match="before it was finished"):
        heard(delta(content="a"))


def test_a_stream_was_asked_for() -> None:
    answer = HeardAnswer(asking(), NAMES, 10_000)

    assert answer.form("application/json") == "whole"
    with pytest.raises(EngineError, match="not a stream"):
        answer.whole(msgspec.json.encode(CHAT))
    with pytest.raises(EngineError):
        answer.form("text/html")
