import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.output import ChatOutput
from engines.chat.tool_format import ToolFormat
from engines.protocol import Output, ReasoningDelta, TextDelta, TokenLogprob, Tool, ToolCallDelta
from tests.engines.chat.answers import Came, cut, cuts, entry, said

ADD = Tool(name="add")

fragments = st.lists(
    st.sampled_from(
        [
            "<think>", "</think>", "<tool_call>", "</tool_call>",
            '{"name": "add", "arguments": {"a": "',
            '"}}', "STOP", "ST", "OP", "\n", " ", "é", "🦆", "text", "<", "\udc80",
        ]
    ),
    max_size=12,
).map(lambda parts: "".join(parts).encode(errors="surrogateescape"))  # fmt: skip


def new_output(**changes: object) -> ChatOutput:
    return ChatOutput(**{"stops": ["STOP"], "tools": [ADD], "splits_reasoning": True} | changes)  # type: ignore[arg-type]


def all_events(
    output: ChatOutput, tokens: list[bytes], entries: list[TokenLogprob]
) -> list[Output]:
    events: list[Output] = []
    for token, one in zip(tokens, entries, strict=True):
        events += output.feed(token, one)
    return [*events, *output.finish()]


@given(answer=fragments, places=cuts, starts=st.booleans())
def test_any_chunking_of_the_bytes_gives_the_same_answer(
    answer: bytes, places: list[int], starts: bool
):
    whole = said(new_output(starts_in_reasoning=starts), [answer])

    assert said(new_output(starts_in_reasoning=starts), cut(answer, places)) == whole


@given(answer=fragments, places=cuts)
def test_a_stop_string_never_leaks_into_the_answer(answer: bytes, places: list[int]):
    assert "STOP" not in said(new_output(), cut(answer, places)).text


@given(answer=st.binary(max_size=60), places=cuts)
def test_plain_bytes_come_out_as_their_text(answer: bytes, places: list[int]):
    assert said(ChatOutput(), cut(answer, places)).text == answer.decode(errors="replace")


def test_the_whole_way_out():
    answer = (
        '<think>\nhm, STOP?\n</think>\n\nLet me see.\n<tool_call>\n{"name": "add", "arguments": '
        '{"a": "STOP"}}\n</tool_call>\nIt is STOP 3'
    )

    came = said(new_output(), cut(answer.encode(), range(0, 500, 3)))

    assert came == Came(
        text="Let me see.\nIt is ",
        reasoning="hm, STOP?",
        calls=[("add", '{"a": "STOP"}')],
        stopped="STOP",
    )


def test_after_a_stop_string_nothing_more_comes():
    output = new_output()

    assert output.feed(b"one STO") == [TextDelta("one ")]
    assert not output.is_finished
    assert list(output.feed(b"P two")) == []
    assert output.stopped == "STOP"
    assert output.is_finished
    assert output.feed(b"three") == ()
    assert output.finish() == ()


def test_without_tools_or_with_the_choice_none_a_call_is_text():
    call = b'<tool_call>{"name": "add", "arguments": {}}</tool_call>'

    assert said(ChatOutput(), [call]).text == call.decode()
    assert said(ChatOutput(tools=[ADD], tool_choice="none"), [call]).text == call.decode()


def test_it_says_whether_tools_were_called():
    output = ChatOutput(tools=[ADD], tool_format=ToolFormat.MISTRAL, parallel_tool_calls=False)

    assert not output.called_tools
    events = output.feed(b'[TOOL_CALLS][{"name": "add", "arguments": {}}]')

    assert output.called_tools
    assert output.is_finished
    assert next(event.name for event in events if isinstance(event, ToolCallDelta)) == "add"


def test_thinking_is_counted_in_tokens():
    output = new_output()

    for token in (b"<think>", b"hm", b", so", b"</think>", b"\n\n", b"yes"):
        output.feed(token)

    assert output.num_reasoning_tokens == 4


def test_an_answer_that_begins_inside_thinking_is_split_even_if_the_model_is_not_known_to_think():
    came = said(ChatOutput(starts_in_reasoning=True), [b"hm</think>yes"])

    assert (came.reasoning, came.text) == ("hm", "yes")


def test_log_probabilities_come_with_the_text_when_it_is_released():
    output = new_output()
    tokens = [
        b"<think>",
        b"hm",
        b"</think>",
        b"\n",
        b"Hi",
        b" S",
        b"T",
        b"A",
        b"R\xc3",
        b"\xa9",
        b" ",
        b"STO",
        b"P!",
    ]
    entries = [entry(token) for token in tokens]

    events = [
        event
        for token, one in zip(tokens, entries, strict=True)
        for event in output.feed(token, one)
    ]
    events += output.finish()

    texts = [event for event in events if isinstance(event, TextDelta)]
    assert "".join(event.text for event in texts) == "Hi STARé "
    assert [one for event in texts for one in event.logprobs] == entries[4:11]
    assert isinstance(events[0], ReasoningDelta)


@given(answer=fragments, places=cuts)
def test_every_text_tokens_entry_appears_once_and_in_order(answer: bytes, places: list[int]):
    tokens = cut(answer, places)
    entries = [entry(token) for token in tokens]
    output = ChatOutput(stops=["STOP"], splits_reasoning=True)

    events = [
        event
        for token, one in zip(tokens, entries, strict=True)
        for event in output.feed(token, one)
    ]
    events += output.finish()

    came = [one for event in events if isinstance(event, TextDelta) for one in event.logprobs]
    places_of = [next(at for at, one in enumerate(entries) if one is each) for each in came]
    assert places_of == sorted(set(places_of))
    if b"<think>" not in answer and output.stopped is None:
        assert came == entries


@pytest.mark.parametrize("held", [b"<tool_ca", b"STO", b"\xf0\x9f", b" \n", b'<tool_call>{"name'])
def test_what_was_held_back_comes_at_the_end(held: bytes):
    came = said(ChatOutput(stops=["STOP"], tools=[ADD]), [b"text", held])

    assert came.text == "text" + held.decode(errors="replace")
