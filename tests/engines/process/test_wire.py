import msgspec
import pytest

from engines.errors import (
    ContextTooLong,
    EngineError,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
    Unsupported,
)
from engines.process.wire import (
    MAX_FRAME_BYTES,
    Ask,
    Batch,
    Build,
    Cancel,
    CountTokens,
    Fault,
    FrameReader,
    FrameTooLong,
    FromChild,
    Generate,
    More,
    Ready,
    ToChild,
    error_of,
    fault_of,
    framed,
    packed,
)
from engines.protocol import (
    Choice,
    Finished,
    FinishReason,
    GenerateRequest,
    Image,
    JsonSchema,
    Message,
    NamedTool,
    ReasoningDelta,
    Sampling,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)

REQUEST = GenerateRequest(
    id="r1",
    model="m",
    messages=[
        Message(role="user", parts=[Text("see"), Image(b"\x89PNG\xff", "image/png")], name="n"),
        Message(
            role="assistant", parts=[], tool_calls=[ToolCall(id="c", name="f", arguments="{}")]
        ),
        Message(role="tool", parts=[Text("4")], tool_calls=[], answers_tool_call="c"),
    ],
    prompt=[1, 2, 3],
    stop=["\n\n"],
    sampling=Sampling(temperature=0.5, logit_bias={17: -100.0}, seed=2**63),
    tools=[Tool(name="f", parameters={"type": "object", "enum": [None, True, 1.5, "é"]})],
    tool_choice=NamedTool("f"),
    constraint=JsonSchema(schema={"type": "integer"}, strict=False),
    logprobs=3,
    extra={"nested": [{"a": None}]},
)


@pytest.mark.parametrize(
    "frame",
    [
        Generate(1, REQUEST),
        Generate(2, msgspec.structs.replace(REQUEST, constraint=Choice(["a", "b"]))),
        Generate(3, msgspec.structs.replace(REQUEST, extra={"number": 2**200})),
        Ask(4, CountTokens(REQUEST)),
        More(5, 128),
        Cancel(6),
    ],
)
def test_what_the_parent_sends_arrives_as_it_was(frame: object) -> None:
    (received,) = FrameReader(ToChild).feed(framed(frame))

    # Tuples arrive as lists; what an engine is promised is a sequence.
    assert type(received) is type(frame)
    assert msgspec.json.encode(received) == msgspec.json.encode(frame)


def test_events_arrive_as_they_were_with_text_sent_bare() -> None:
    logprob = TokenLogprob(b"\xff", -0.25, [TopLogprob(b"a", -1.5, 7)], 3)
    events = [
        Started(prompt_tokens=5, cached_tokens=2),
        TextDelta("plain"),
        TextDelta("", [logprob]),
        ReasoningDelta("hm"),
        ToolCallDelta(index=1, id="c", name="f", arguments='{"a"'),
        Finished(reason=FinishReason.STOP, usage=Usage(prompt_tokens=5), stop="x"),
    ]
    batch = Batch([(call, packed(event)) for call, event in enumerate(events)])

    (received,) = FrameReader(FromChild).feed(framed(batch))

    assert received == batch
    assert received.items[1] == (1, "plain")
    assert [item for _, item in received.items if item != "plain"] == [
        event for event in events if event != TextDelta("plain")
    ]


def test_frames_are_found_wherever_the_stream_is_cut() -> None:
    frames = [Ready(), Batch([(1, "a" * 300)]), Batch([]), Ready()]
    stream = b"".join(framed(frame) for frame in frames)

    for size in (1, 2, 3, 7, 100, len(stream)):
        reader = FrameReader(FromChild)
        found = [
            frame
            for start in range(0, len(stream), size)
            for frame in reader.feed(stream[start : start + size])
        ]
        assert found == frames


@pytest.mark.parametrize("text", [b"hello, this is text", b"Traceback (most recent", b"\xff" * 8])
def test_text_is_no_frame(text: bytes) -> None:
    with pytest.raises((FrameTooLong, msgspec.MsgspecError)):
        list(FrameReader(FromChild).feed(text + b"\n" * 10_000_000))


def test_a_frame_of_the_other_side_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        list(FrameReader(ToChild).feed(framed(Ready())))


def test_a_frame_that_is_too_long_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.process.wire.MAX_FRAME_BYTES", 100)

    with pytest.raises(OverflowError, match="more than the 100"):
        framed(Batch([(1, "a" * 200)]))
    assert MAX_FRAME_BYTES == 2**30


@pytest.mark.parametrize(
    "error",
    [
        EngineError("plain"),
        RequestRefused("no", param="stop"),
        ContextTooLong(prompt_tokens=300, context_tokens=200, param="prompt"),
        Unsupported("cannot", param=None),
        ModelNotFound("m", "there is only n"),
        Overloaded("64 wait", retry_after=2.5),
        Unavailable("gone", retry_after=None),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_with_its_class_and_every_field(error: EngineError) -> None:
    (received,) = FrameReader(FromChild).feed(framed(Batch([(1, fault_of(error))])))
    arrived = error_of(received.items[0][1])

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_an_error_of_an_engines_own_arrives_as_the_class_it_is_made_of() -> None:
    class CacheFull(Overloaded):
        def __init__(self) -> None:
            super().__init__("the cache is full", retry_after=3.0)
            self.blocks = [object()]

    arrived = error_of(fault_of(CacheFull()))

    assert type(arrived) is Overloaded
    assert (str(arrived), arrived.retry_after) == ("the cache is full", 3.0)


def test_a_fault_that_is_no_engine_error_stays_none() -> None:
    assert not isinstance(error_of(Fault(Fault.UNEXPECTED, "a bug")), EngineError)


def test_the_first_frame_of_a_child_holds_no_code() -> None:
    from engines.process import EngineSpec

    spec = EngineSpec.of("engines.gguf.engine:GgufEngine", Text("a configuration"))

    (received,) = FrameReader(ToChild).feed(framed(Build("laptop", spec, 20)))

    assert received.spec == spec
    assert msgspec.msgpack.decode(received.spec.config) == {
        "type": "text", "text": "a configuration",
    }  # fmt: skip
