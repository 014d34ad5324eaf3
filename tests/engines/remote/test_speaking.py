import msgspec
import pytest

from engines.protocol import (
    Choice,
    Constraint,
    Grammar,
    Image,
    JsonObject,
    JsonSchema,
    Message,
    NamedTool,
    Regex,
    Sampling,
    Text,
    Tool,
    ToolCall,
)
from engines.remote.edits import Edits
from engines.remote.speaking import path_of, spoken
from gateway.api.openai.chat import CreateChatCompletion, to_requests
from gateway.api.openai.completions import CreateCompletion
from tests.engines.remote.conftest import asking

TOOL = Tool(name="f", description="does", parameters={"type": "object"})


def said(edits: Edits | None = None, **fields: object) -> dict[str, object]:
    return msgspec.json.decode(spoken(asking(**fields), edits or Edits()))


def test_a_conversation_reads_back_as_it_was() -> None:
    messages = [
        Message(role="system", parts=[Text("be brief")]),
        Message(role="user", parts=[Text("what is "), Text("this")], name="ada"),
        Message(role="assistant", tool_calls=[ToolCall(id="c1", name="f", arguments="{}")]),
        Message(role="tool", parts=[Text("42")], answers_tool_call="c1"),
    ]
    body = spoken(
        asking(
            messages=messages,
            tools=[TOOL],
            tool_choice=NamedTool("f"),
            parallel_tool_calls=False,
            max_tokens=5,
            stop=["x"],
            logprobs=2,
            sampling=Sampling(temperature=0.5, top_k=3, repeat_penalty=1.2, seed=1,
                              logit_bias={7: -1.0}, min_tokens=1, ignore_eos=True),
            reasoning_effort="low",
        ),
        Edits(),
    )  # fmt: skip

    # Penstock's own decoder refuses what it does not know, so this is held to its specification.
    (read,) = to_requests(msgspec.json.decode(body, type=CreateChatCompletion), "req_1")

    assert [(m.role, m.text, m.name) for m in read.messages] == [
        (m.role, m.text, m.name) for m in messages
    ]
    assert read.messages[2].tool_calls == messages[2].tool_calls
    assert read.messages[3].answers_tool_call == "c1"
    assert read.tools == [TOOL]
    assert (read.tool_choice, read.parallel_tool_calls) == (NamedTool("f"), False)
    assert (read.max_tokens, read.stop, read.logprobs) == (5, ["x"], 2)
    assert read.sampling.logit_bias == {7: -1.0}
    assert (read.sampling.repeat_penalty, read.sampling.ignore_eos) == (1.2, True)
    assert read.reasoning_effort == "low"


def test_it_always_streams_and_asks_for_counts_where_it_may() -> None:
    assert said()["stream"] is True
    assert said()["stream_options"] == {"include_usage": True}
    assert "stream_options" not in said(Edits(ask_for_usage=False))


def test_a_prompt_goes_to_completions() -> None:
    request = asking(prompt=[1, 2], logprobs=3, max_tokens=4)

    body = spoken(request, Edits(cap_field="max_completion_tokens"))

    assert path_of(request) == "completions"
    read = msgspec.json.decode(body, type=CreateCompletion)
    assert (read.prompt, read.logprobs, read.max_tokens) == ([1, 2], 3, 4)
    assert path_of(asking()) == "chat/completions"


def test_a_picture_is_sent_along() -> None:
    parts = [Text("look"), Image(data=b"\x89PNG", media_type="image/png")]

    (message,) = said(messages=[Message(role="user", parts=parts)])["messages"]  # type: ignore[misc]

    assert message["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw=="},
    }


@pytest.mark.parametrize(
    "constraint",
    [
        JsonObject(),
        JsonSchema(schema={"type": "object"}, name="n", strict=True),
        Regex("a+"),
        Choice(["a", "b"]),
        Grammar('start: "a"'),
    ],
)
def test_a_constraint_reads_back_as_it_was(constraint: Constraint) -> None:
    body = spoken(asking(constraint=constraint), Edits())

    (read,) = to_requests(msgspec.json.decode(body, type=CreateChatCompletion), "req_1")

    assert read.constraint == constraint


def test_fields_that_only_the_upstream_understands_are_added() -> None:
    assert said(extra={"top_a": 0.2})["top_a"] == 0.2
