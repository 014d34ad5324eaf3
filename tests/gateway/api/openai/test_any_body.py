"""Whatever a body's fields hold, it becomes requests or a refusal that says why."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.bodies import decode_body
from gateway.api.openai import chat, completions, embeddings
from gateway.errors import BadRequest

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 130)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "auto", "none", "required", "text", "user", "low", "{}"])
)
WORDS = st.sampled_from(
    ["type", "role", "content", "function", "name", "text", "schema", "json_schema", "tools", "1"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
ROLES = ["system", "developer", "user", "assistant", "tool", "function"]
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(ROLES),
            "content": st.just("hi") | VALUES,
        },
        optional={
            "name": SCALARS,
            "tool_call_id": SCALARS,
            "tool_calls": VALUES,
            "function_call": VALUES,
            "refusal": SCALARS,
        },
    ),
    max_size=3,
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": st.sampled_from(["f", "g"])}),
        }
    ),
    max_size=3,
)
CHOICES = st.sampled_from(
    [
        "auto",
        "required",
        {"type": "function", "function": {"name": "f"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "g"}}],
            },
        },
    ]
)


@st.composite
def bodies(
    draw: st.DrawFn, struct: type[msgspec.Struct], **likely: st.SearchStrategy[Any]
) -> dict[str, Any]:
    """Likely values for some fields, and anything at all for up to two."""
    names = [field.encode_name for field in msgspec.structs.fields(struct)]
    body = {name: draw(strategy) for name, strategy in likely.items()}
    for name in draw(st.lists(st.sampled_from(names), max_size=2)):
        body[name] = draw(VALUES)
    return {"model": "m"} | body


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


@given(bodies(chat.CreateChatCompletion, messages=MESSAGES, tools=TOOLS, tool_choice=CHOICES))
def test_any_chat_body_becomes_requests_or_a_refusal(body: dict[str, Any]) -> None:
    decoder = msgspec.json.Decoder(chat.CreateChatCompletion)

    try:
        requests = chat.to_requests(decode_body(encoded(body), decoder), "req_x")
    except BadRequest as error:
        assert error.param
        assert 0 < len(error.message) < 600
    else:
        assert len(requests) == (body.get("n") or 1)
        assert requests[0].messages


@given(bodies(completions.CreateCompletion, prompt=st.lists(SCALARS, max_size=3) | st.just("a")))
def test_any_completion_body_becomes_requests_or_a_refusal(body: dict[str, Any]) -> None:
    decoder = msgspec.json.Decoder(completions.CreateCompletion)

    try:
        requests = completions.to_requests(decode_body(encoded(body), decoder), "req_x")
    except BadRequest as error:
        assert error.param
    else:
        assert all(request.prompt for request in requests)


@given(bodies(embeddings.CreateEmbedding, input=st.lists(SCALARS, max_size=3) | st.just("a")))
def test_any_embedding_body_becomes_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    decoder = msgspec.json.Decoder(embeddings.CreateEmbedding)

    try:
        request = embeddings.to_request(decode_body(encoded(body), decoder), "req_x")
    except BadRequest as error:
        assert error.param
    else:
        assert request.inputs


@pytest.mark.parametrize("seed", [-(2**63), 0, 2**63 - 1])
def test_a_seed_at_the_edge_still_gives_each_choice_its_own(seed: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 3, "seed": seed}
    decoded = msgspec.convert(body, chat.CreateChatCompletion)

    seeds = [request.sampling.seed for request in chat.to_requests(decoded, "req_x")]

    assert seeds == [seed, seed + 1, seed + 2]
