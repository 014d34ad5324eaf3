import msgspec
import pytest

from engines.errors import EngineError, RequestRefused, Unavailable
from engines.protocol import Event, Finished, FinishReason, Message, Text, Usage
from engines.remote.answers import Names
from engines.remote.edits import Edits, edited
from engines.remote.relay import MAX_HELD_EVENTS, RelayedAnswer
from engines.wire import Relayed
from tests.engines.remote.conftest import relaying
from tests.upstream import CHAT, DONE, USAGE, chunk, event

ROLE = event(
    {"model": "upstream-model", "choices": [{"delta": {"role": "assistant", "content": ""}}]}
)


def reading(body: bytes = b'{"model":"public","stream":true}', **fields: object) -> RelayedAnswer:
    request = relaying(body, **fields)
    assert request.wire is not None
    changed = edited(request, request.wire, Edits())
    names = Names(
        model=request.model, public_model=changed.public_model, with_words=True, relay=True
    )
    return RelayedAnswer(request, changed, names, 10_000)


def text_of(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Relayed))


def read(answer: RelayedAnswer, *pieces: bytes) -> list[Event]:
    return [event for piece in pieces for event in answer.feed(piece)]


def test_events_go_through_as_they_came_but_for_the_models_name() -> None:
    odd = (
        b'data: {"model":"upstream-model","x":[1.50,"\\u00e9"],'
        b'"choices":[{"text":"a","y": {} }]}\n\n'
    )

    events = read(reading(), odd)

    assert text_of(events) == odd.replace(b"upstream-model", b"public")


def test_nothing_is_taken_apart_where_nothing_changes() -> None:
    body = b'{"model":"upstream-model","stream":true,"stream_options":{"include_usage":true}}'
    odd = b'data: { "model" : "upstream-model", "usage":null, "choices":[{"text":"a"}] }\n\n'

    assert text_of(read(reading(body), odd)) == odd


def test_counts_that_only_we_asked_for_are_taken_out() -> None:
    answer = reading()

    events = read(answer, chunk("a", usage=None), chunk(usage=None), USAGE, DONE)
    last = answer.end()

    assert b"usage" not in text_of(events)
    assert isinstance(last[-1], Finished)
    assert last[-1].usage == Usage(prompt_tokens=7, completion_tokens=2)
    assert last[-1].reason is FinishReason.STOP


def test_counts_that_the_client_asked_for_stay() -> None:
    answer = reading(b'{"model":"public","stream":true,"stream_options":{"include_usage":true}}')

    events = read(answer, chunk("a", usage=None), chunk(usage=None), USAGE, DONE)

    assert text_of(events).count(b'"usage":null') == 2
    assert b'"prompt_tokens":7' in text_of(events)


def test_counts_in_a_chunk_with_choices_are_counted_and_stay() -> None:
    answer = reading()

    events = read(answer, chunk("a"), chunk(usage={"prompt_tokens": 3, "completion_tokens": 1}))

    assert b'"prompt_tokens":3' in text_of(events)
    assert answer.end()[-1].usage.prompt_tokens == 3  # type: ignore[union-attr]


def test_without_counts_they_are_guessed() -> None:
    answer = reading(messages=[Message(role="user", parts=[Text("x" * 40)])])
    read(answer, ROLE, chunk("a"), chunk("b"), chunk(), DONE)

    finished = answer.end()[-1]

    assert isinstance(finished, Finished)
    assert finished.usage == Usage(prompt_tokens=10, completion_tokens=4, is_estimate=True)


def test_what_says_nothing_is_held_until_something_is_said() -> None:
    answer = reading()

    assert read(answer, ROLE, ROLE) == []
    events = read(answer, chunk("a"))

    assert text_of(events).count(b"data: ") == 3
    assert len(events) == 1


def test_not_everything_is_held_for_ever() -> None:
    answer = reading()

    events = read(answer, *[ROLE] * (MAX_HELD_EVENTS + 1))

    assert text_of(events).count(b"data: ") == MAX_HELD_EVENTS + 1


def test_a_stream_that_says_nothing_at_all_is_still_handed_on() -> None:
    answer = reading()
    assert read(answer, ROLE, DONE) == []

    last = answer.end()

    assert isinstance(last[0], Relayed)
    assert last[0].data.startswith(b"data: ")
    assert isinstance(last[1], Finished)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0}]},
        {"refusal": "no"},
        {"audio": {"id": "x"}},
        {"something_new": 1},
    ],
)
def test_any_kind_of_output_is_output(delta: dict[str, object]) -> None:
    assert read(reading(), event({"choices": [{"delta": delta}]}))


def test_what_came_before_a_failure_is_handed_on_first() -> None:
    answer = reading()
    read(answer, chunk("a"))
    events = answer.feed(chunk("b") + b"data: garbage\n\n")

    assert b'"b"' in text_of([next(events)])
    with pytest.raises(Unavailable, match="not JSON"):
        next(events)


def test_a_failure_before_anything_was_sent_sends_nothing() -> None:
    with pytest.raises(Unavailable):
        read(reading(), chunk("a") + b"data: garbage\n\n")


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"5", b'"x"', b'{"a":"\xff"}', b"[" * 100_000, b"{}{}"]
)
def test_an_event_that_is_no_json_object_is_no_answer(data: bytes) -> None:
    with pytest.raises(Unavailable):
        read(reading(), b"data: " + data + b"\n\n")


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":"none"}',
        b'{"choices":[{"finish_reason":7}]}',
        b'{"usage":{"prompt_tokens":"x"}}',
    ],
)
def test_an_object_of_a_shape_that_nobody_documents_goes_through(data: bytes) -> None:
    answer = reading()

    events = read(answer, chunk("a"), b"data: " + data + b"\n\n")

    assert data in text_of(events)


def test_an_error_is_an_error_wherever_it_stands() -> None:
    refusal = {"error": {"message": "bad", "code": 400}}
    with pytest.raises(RequestRefused):
        read(reading(), event(refusal))
    with pytest.raises(RequestRefused):
        reading(b'{"model":"public"}').whole(msgspec.json.encode(refusal))


@pytest.mark.parametrize("error", [None, {}, "", False])
def test_an_error_field_that_says_nothing_is_no_error(error: object) -> None:
    assert read(reading(), chunk("a", error=error))


@pytest.mark.parametrize(
    "pieces",
    [[], [ROLE], [chunk("a")], [chunk("a"), chunk()[:-9]], [chunk("a"), chunk(), b"data: [DO"]],
)
def test_a_stream_that_broke_off_did_not_end_well(pieces: list[bytes]) -> None:
    answer = reading()
    read(answer, *pieces)

    with pytest.raises(Unavailable):
        answer.end()


@pytest.mark.parametrize("last", [[DONE], [b"data: [DONE]"], [b"data: [DONE]\r\n\r\n"], []])
def test_the_end_may_be_told_in_several_ways(last: list[bytes]) -> None:
    answer = reading()
    read(answer, chunk("a"), chunk(), *last)

    assert isinstance(answer.end()[-1], Finished)


def test_every_choice_must_have_finished() -> None:
    answer = reading()
    one = event({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]})
    end = event({"choices": [{"index": 1, "text": "", "finish_reason": "length"}]})
    read(answer, one, end)

    with pytest.raises(Unavailable, match="before it was finished"):
        answer.end()


def test_a_whole_answer_goes_through_as_it_came_but_for_the_models_name() -> None:
    body = msgspec.json.encode(CHAT)

    relayed, finished = reading(b'{"model":"public"}').whole(body)

    assert isinstance(relayed, Relayed)
    assert relayed.data == body.replace(b"upstream-model", b"public")
    assert isinstance(finished, Finished)
    assert finished.usage == Usage(prompt_tokens=7, completion_tokens=2)


def test_a_whole_answer_is_not_a_stream() -> None:
    with pytest.raises(Unavailable, match="not a stream"):
        reading().whole(msgspec.json.encode(CHAT))


@pytest.mark.parametrize(
    ("content_type", "body", "form"),
    [
        ("text/event-stream", b'{"model":"p","stream":true}', "events"),
        ("application/json", b'{"model":"p"}', "whole"),
        ("application/problem+json", b'{"model":"p"}', "whole"),
    ],
)
def test_an_answer_has_the_form_that_was_asked_for(
    content_type: str, body: bytes, form: str
) -> None:
    assert reading(body).form(content_type) == form


@pytest.mark.parametrize("content_type", ["text/html", "", "text/event-stream", "audio/mpeg"])
def test_other_forms_are_no_answer(content_type: str) -> None:
    with pytest.raises(EngineError):
        reading(b'{"model":"p"}').form(content_type)
