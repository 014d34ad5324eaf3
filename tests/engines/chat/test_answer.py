import numpy as np
import numpy.typing as npt
import pytest

from engines.chat.after_thinking import AfterThinking
from engines.chat.answer import Admitted, Answer, Ended, Generated, merged
from engines.chat.output import ChatOutput
from engines.errors import Unavailable
from engines.gguf.sequence import Sequence
from engines.metrics import RequestRecorder
from engines.outbox import Mailbox
from engines.protocol import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    Timing,
    TokenLogprob,
    Tool,
    ToolCallDelta,
)

PIECES = [b"one ", b"two ", b"three ", b"STOP", b"\xe2\x82", b"\xac", b'<tool_call>{"na']
END = Ended(FinishReason.LENGTH, Timing())


def answer_of(mailbox: Mailbox, **output: object) -> Answer:
    sequence = Sequence(tokens=[1, 2, 3], max_tokens=9, mailbox=mailbox)
    record = RequestRecorder(context_tokens=100).request(
        prompt_tokens=3, max_tokens=9, arrived_at=0.0
    )
    return Answer(sequence, mailbox, ChatOutput(**output), PIECES, record=record)


async def test_tokens_that_came_together_leave_as_one_event() -> None:
    mailbox: Mailbox = Mailbox()
    for item in (Admitted(2), Generated(0, None), Generated(1, None), END):
        mailbox.put(item)

    events = [event async for event in answer_of(mailbox).events()]

    assert events[0] == Started(prompt_tokens=3, cached_tokens=2)
    assert events[1] == TextDelta("one two ")
    assert isinstance(events[2], Finished)
    assert events[2].usage.completion_tokens == 2


async def test_what_came_before_a_failure_is_still_told() -> None:
    mailbox: Mailbox = Mailbox()
    for item in (Admitted(0), Generated(0, None), Unavailable("gone")):
        mailbox.put(item)
    seen: list[Event] = []

    with pytest.raises(Unavailable, match="gone"):
        async for event in answer_of(mailbox).events():
            seen.append(event)

    assert seen[1:] == [TextDelta("one ")]


async def test_a_stop_string_ends_the_answer_though_more_tokens_came() -> None:
    mailbox: Mailbox = Mailbox()
    for token in (0, 3, 1):
        mailbox.put(Generated(token, None))

    events = [event async for event in answer_of(mailbox, stops=["STOP"]).events()]

    last = events[-1]
    assert events[0] == TextDelta("one ")
    assert isinstance(last, Finished)
    assert (last.reason, last.stop) == (FinishReason.STOP, "STOP")
    assert last.usage.completion_tokens == 2


async def test_a_call_that_the_limit_cuts_off_in_its_head_leaves_no_markup() -> None:
    mailbox: Mailbox = Mailbox()
    for item in (Generated(0, None), Generated(6, None), END):
        mailbox.put(item)

    answer = answer_of(mailbox, tools=[Tool(name="add")])
    events = [event async for event in answer.events()]

    assert events[0] == TextDelta("one")
    assert isinstance(events[1], Finished)


async def test_half_a_character_at_the_end_is_not_lost() -> None:
    mailbox: Mailbox = Mailbox()
    for item in (Generated(4, None), Generated(5, None), Generated(4, None), END):
        mailbox.put(item)

    events = [event async for event in answer_of(mailbox).events()]

    assert events[0] == TextDelta("€\ufffd")


def test_only_neighbours_of_one_kind_are_joined() -> None:
    first, second = TokenLogprob(b"a", -1.0), TokenLogprob(b"b", -2.0)

    joined = merged(
        [
            ReasoningDelta("x"),
            ReasoningDelta("y"),
            TextDelta("a", [first]),
            TextDelta("b", [second]),
            ToolCallDelta(index=0, arguments="1"),
            ToolCallDelta(index=0, arguments="2"),
        ]
    )

    assert joined == [
        ReasoningDelta("xy"),
        TextDelta("ab", (first, second)),
        ToolCallDelta(index=0, arguments="1"),
        ToolCallDelta(index=0, arguments="2"),
    ]


class OnlyFive:
    is_finished = True

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def allows(self, token: int, /) -> bool:
        return token == 5

    def accept(self, token: int, /) -> None:
        self.accepted.append(token)

    def apply(self, logits: npt.NDArray[np.float32], /) -> None:
        logits[:5] = -np.inf


def test_a_constraint_waits_until_the_thinking_is_over() -> None:
    inner = OnlyFive()
    constraint = AfterThinking(inner, end_of_thinking=3, end_ids=[0])

    assert constraint.allows(1)
    assert not constraint.allows(0)
    assert not constraint.is_finished
    constraint.accept(1)
    constraint.accept(3)
    assert not constraint.allows(1)
    assert constraint.allows(5)
    constraint.accept(5)

    assert inner.accepted == [5]
    assert constraint.is_finished


def test_while_thinking_only_the_end_is_masked() -> None:
    constraint = AfterThinking(OnlyFive(), end_of_thinking=3, end_ids=[0])
    logits = np.zeros(6, np.float32)

    constraint.apply(logits)

    assert np.isneginf(logits).tolist() == [True, False, False, False, False, False]
