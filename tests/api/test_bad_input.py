"""Bodies that no client should send: each gets its 4xx, and the next caller an answer."""

import json
import socket

import pytest

from engines.errors import RequestRefused
from tests.api.conftest import Stage

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def _body(**fields: object) -> bytes:
    return json.dumps({"model": "chat-small", "messages": [USER]} | fields).encode()


def _with(text: str) -> bytes:
    """A good request with `text` in the place of its last brace."""
    return (_body()[:-1].decode() + "," + text + "}").encode()


NOT_JSON = {
    "nothing": b"",
    "blanks": b" \n ",
    "a word": b"hello",
    "half an object": b'{"model": "chat-small", "messages": [',
    "a trailing comma": b'{"model": "chat-small",}',
    "two objects": _body() + _body(),
    "single quotes": b"{'model': 'chat-small'}",
    "a byte order mark": b"\xef\xbb\xbf" + _body(),
    "UTF-16": _body().decode().encode("utf-16"),
    "invalid UTF-8 in a string": _body().replace(b"hi", b"\xff\xfe"),
    "invalid UTF-8 in a key": _with('"x').replace(b'"x', b'"\xc3\x28": 1'),
    "an overlong UTF-8 slash": _body().replace(b"hi", b"\xc0\xaf"),
    "a raw line break in a string": _body().replace(b"hi", b"h\ni"),
    "a lone high surrogate": _body().replace(b"hi", b"\\ud800"),
    "a lone low surrogate": _body().replace(b"hi", b"\\udc00 and more"),
    "NaN": _with('"temperature": NaN'),
    "Infinity": _with('"temperature": Infinity'),
    "-Infinity": _with('"top_p": -Infinity'),
    "a hexadecimal number": _with('"seed": 0x10'),
    "a leading zero": _with('"seed": 012'),
    "an array": b"[]",
    "null": b"null",
    "a number": b"17",
    "a string": b'"chat-small"',
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and complete": _with('"metadata": ' + '{"a":' * 5_000 + "1" + "}" * 5_000),
    "deep in a schema": _with(
        '"guided_json": {"type": "object", "x": ' + "[" * 300 + "]" * 300 + "}"
    ),
}

# Body -> the field that the answer names.
WRONG_FIELD = {
    "no model": (b'{"messages": [{"role": "user", "content": "hi"}]}', "model"),
    "no messages": (b'{"model": "chat-small"}', "messages"),
    "an unknown field": (_body(temprature=1), "temprature"),
    "an unknown field in a message": (_body(messages=[USER | {"mood": "x"}]), "messages[0].mood"),
    "a repeated key": (_with('"seed": 1, "seed": 2'), "seed"),
    "a repeated key further in": (_body(messages=[USER]).replace(
        b'"role": "user"', b'"role": "user", "name": "a", "name": "b"'), "name"),
    "an empty model": (_body(model=""), "model"),
    "a model that is a number": (_body(model=5), "model"),
    "messages that are text": (_body(messages="hi"), "messages"),
    "no message at all": (_body(messages=[]), "messages"),
    "a message that is text": (_body(messages=["hi"]), "messages[0]"),
    "a message without a role": (_body(messages=[{"content": "hi"}]), "messages[0].role"),
    "a role that nobody has": (_body(messages=[{"role": "boss"}]), "messages[0].role"),
    "a user without content": (_body(messages=[{"role": "user"}]), "messages[0].content"),
    "a user with null content": (
        _body(messages=[{"role": "user", "content": None}]),
        "messages[0].content",
    ),
    "no parts": (_body(messages=[{"role": "user", "content": []}]), "messages[0].content"),
    "a part of no kind": (
        _body(messages=[{"role": "user", "content": [{"type": "smell"}]}]),
        "messages[0].content[0].type",
    ),
    "a picture from the network": (
        _body(messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}]),
        "messages[0].content[0].image_url.url",
    ),
    "a picture that is none": (
        _body(messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!"}}]}]),
        "messages[0].content[0].image_url.url",
    ),
    "sound": (
        _body(messages=[{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]),
        "messages[0].content[0].type",
    ),
    "a file": (
        _body(messages=[{"role": "user", "content": [{"type": "file", "file": {}}]}]),
        "messages[0].content[0].type",
    ),
    "an assistant that says nothing": (
        _body(messages=[{"role": "assistant"}]),
        "messages[0].content",
    ),
    "a tool message for no call": (
        _body(messages=[{"role": "tool", "content": "4"}]),
        "messages[0].tool_call_id",
    ),
    "a hundred thousand messages": (_body(messages=[USER] * 100_000), "messages"),
    "temperature as text": (_body(temperature="hot"), "temperature"),
    "temperature as a boolean": (_body(temperature=True), "temperature"),
    "temperature too high": (_body(temperature=2.1), "temperature"),
    "temperature below zero": (_body(temperature=-0.1), "temperature"),
    "temperature as 10^400": (_with('"temperature": 1' + "0" * 400), "temperature"),
    "temperature as 1e400": (_with('"temperature": 1e400'), "temperature"),
    "top_p above one": (_body(top_p=1.1), "top_p"),
    "a penalty too high": (_body(presence_penalty=2.5), "presence_penalty"),
    "max_tokens as text": (_body(max_tokens="10"), "max_tokens"),
    "max_tokens as a boolean": (_body(max_tokens=True), "max_tokens"),
    "max_tokens with a fraction": (_body(max_tokens=1.5), "max_tokens"),
    "max_tokens of zero": (_body(max_tokens=0), "max_tokens"),
    "max_tokens below zero": (_body(max_completion_tokens=-1), "max_completion_tokens"),
    "max_tokens as 10^400": (_with('"max_tokens": 1' + "0" * 400), "max_tokens"),
    "max_tokens as 10^5000": (_with('"max_tokens": 1' + "0" * 5000), "max_tokens"),
    "n of zero": (_body(n=0), "n"),
    "n of a thousand": (_body(n=1000), "n"),
    "a seed of 10^30": (_body(seed=10**30), "seed"),
    "top_logprobs alone": (_body(top_logprobs=2), "top_logprobs"),
    "top_logprobs too many": (_body(logprobs=True, top_logprobs=21), "top_logprobs"),
    "logprobs as a number": (_body(logprobs=5), "logprobs"),
    "stop as a number": (_body(stop=5), "stop"),
    "stop with a number": (_body(stop=["a", 5]), "stop[1]"),
    "an empty stop": (_body(stop=""), "stop"),
    "an empty stop among others": (_body(stop=["a", ""]), "stop[1]"),
    "too many stops": (_body(stop=["a"] * 17), "stop"),
    "a stop of a megabyte": (_body(stop="ab" * 500_000), "stop"),
    "a long stop among others": (_body(stop=["a", "b" * 1001]), "stop[1]"),
    "stream as text": (_body(stream="yes"), "stream"),
    "stream options without a stream": (
        _body(stream_options={"include_usage": True}),
        "stream_options",
    ),
    "an unknown stream option": (
        _body(stream=True, stream_options={"include_use": True}),
        "stream_options.include_use",
    ),
    "a bias for a word": (_body(logit_bias={"hello": 1}), "logit_bias"),
    "a bias too strong": (_body(logit_bias={"5": 101}), "logit_bias"),
    "a bias for token -1": (_body(logit_bias={"-1": 1}), "logit_bias"),
    "a bias for token 10^25": (_body(logit_bias={str(10**25): 1}), "logit_bias"),
    "two thousand biases": (_body(logit_bias={str(i): 1 for i in range(2000)}), "logit_bias"),
    "a tool without a type": (_body(tools=[{"function": {"name": "f"}}]), "tools[0].type"),
    "a tool of another kind": (_body(tools=[{"type": "web"}]), "tools[0].type"),
    "a custom tool": (_body(tools=[{"type": "custom", "custom": {"name": "f"}}]), "tools[0].type"),
    "a tool without a name": (
        _body(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
    ),
    "a tool with a bad name": (
        _body(tools=[{"type": "function", "function": {"name": "f f"}}]),
        "tools[0].function.name",
    ),
    "a tool twice": (_body(tools=[TOOL, TOOL]), "tools[1].function.name"),
    "too many tools": (_body(tools=[TOOL] * 129), "tools"),
    "parameters that are text": (
        _body(tools=[{"type": "function", "function": {"name": "f", "parameters": "x"}}]),
        "tools[0].function.parameters",
    ),
    "a choice of nothing": (_body(tool_choice="required"), "tool_choice"),
    "a choice that is none": (_body(tools=[TOOL], tool_choice="maybe"), "tool_choice"),
    "a choice of an unknown tool": (
        _body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
        "tool_choice.function.name",
    ),
    "an allowed tool that is unknown": (
        _body(tools=[TOOL], tool_choice={"type": "allowed_tools", "allowed_tools": {
            "mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}}),
        "tool_choice.allowed_tools.tools[0].function.name",
    ),
    "a response format of no kind": (
        _body(response_format={"type": "xml"}),
        "response_format.type",
    ),
    "a schema without a schema": (
        _body(response_format={"type": "json_schema", "json_schema": {"name": "x"}}),
        "response_format.json_schema.schema",
    ),
    "a schema with a bad name": (
        _body(response_format={"type": "json_schema", "json_schema": {"name": "é", "schema": {}}}),
        "response_format.json_schema.name",
    ),
    "two things to look like": (_body(response_format=SCHEMA, guided_regex="a"), "guided_regex"),
    "an effort nobody makes": (_body(reasoning_effort="huge"), "reasoning_effort"),
    "an unknown template option": (
        _body(chat_template_kwargs={"colour": "red"}),
        "chat_template_kwargs.colour",
    ),
}  # fmt: skip


def _post(stage: Stage, body: bytes, **headers: str) -> dict[str, object]:
    """Send a bad body; check the answer's shape and that a good request still works."""
    response = stage.client.post(
        "/v1/chat/completions",
        content=body,
        headers={"content-type": "application/json", **headers},
    )
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-should-retry"] == "false"
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert len(response.content) < 1000
    assert stage.chat().json()["choices"][0]["message"]["content"] == "hello there"
    assert stage.server.run(lambda: (stage.engine.running, len(stage.server.gateway.calls))) == (
        0,
        0,
    )
    return {"status": response.status_code, **error}


@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_no_json_object_is_a_400(stage: Stage, name: str) -> None:
    error = _post(stage, NOT_JSON[name])

    assert error["status"] == 400
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", WRONG_FIELD)
def test_a_wrong_field_is_a_400_that_names_it(stage: Stage, name: str) -> None:
    body, field = WRONG_FIELD[name]

    error = _post(stage, body)

    assert (error["status"], error["param"]) == (400, field)
    assert error["code"] == "invalid_value"


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        (
            {"temprature": 1},
            "temprature is not a field of this request; did you mean 'temperature'?",
        ),
        ({"stop": {"a": 1}}, "stop must be a string or a list or null, not an object"),
        ({"max_tokens": "5"}, "max_tokens must be an integer or null, not a string"),
        ({"seed": False}, "seed must be an integer or null, not a boolean"),
        (
            {"verbosity": "loud"},
            "verbosity is 'loud'; it must be one of high, low, medium",
        ),
        (
            {"messages": [{"role": "boss"}]},
            "messages[0].role is 'boss'; it must be one of "
            "assistant, developer, function, system, tool, user",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0].type is 'smell'; it must be one of "
            "file, image_url, input_audio, refusal, text",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "nam": "y"}]},
            "messages[0].nam is not a field of this request; did you mean 'name'?",
        ),
        ({"n": 17}, "n is 17; it must be from 1 to 16"),
        ({"max_tokens": 10**400}, "max_tokens is about 10^400; it must be from 1 to 2147483647"),
        ({"logit_bias": {"x": 1}}, "a key of logit_bias must be an integer, not a string"),
    ],
)
def test_a_message_names_the_field_the_value_and_the_way_out(
    stage: Stage, fields: dict[str, object], hint: str
) -> None:
    assert _post(stage, _body(**fields))["message"] == hint


def test_a_body_over_the_limit_is_a_413_before_it_is_read(stage: Stage) -> None:
    limit = stage.server.gateway.settings.max_body_bytes
    host, port = stage.server.url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % (limit + 1)
        )
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in answer
    assert stage.chat().status_code == 200


def test_a_body_without_a_length_is_cut_off_at_the_limit(stage: Stage) -> None:
    host, port = stage.server.url.removeprefix("http://").split(":")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(40):
                connection.sendall(chunk)
        except OSError:
            pass  # it need not listen to the end
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert stage.chat().status_code == 200


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_not_called_json_is_a_415(stage: Stage, media_type: str) -> None:
    error = _post(stage, _body(), **{"content-type": media_type})

    assert (error["status"], error["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_called_json_in_any_way(stage: Stage, media_type: str) -> None:
    response = stage.client.post(
        "/v1/chat/completions", content=_body(), headers={"content-type": media_type}
    )

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/chat/completion", 404, "unknown_url"),
        ("GET", "/v2", 404, "unknown_url"),
        ("GET", "/v1/../etc/passwd", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/chat-small", 405, "method_not_allowed"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
    ],
)
def test_a_wrong_path_or_method_has_the_same_shape(
    stage: Stage, method: str, path: str, status: int, code: str
) -> None:
    response = stage.client.request(method, path)

    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.headers["x-request-id"].startswith("req_")


def test_the_headers_of_every_answer(stage: Stage) -> None:
    headers = stage.chat().headers

    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-processing-ms"].isdigit()
    assert headers["openai-version"] == "2020-10-01"
    assert "server" not in headers


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "(("}, "guided_regex"),
        ({"structured_outputs": {"regex": "(("}}, "structured_outputs.regex"),
        ({"response_format": SCHEMA}, "response_format"),
        ({}, "response_format"),
    ],
)
def test_an_engines_refusal_names_the_field_that_was_written(
    stage: Stage, fields: dict[str, object], param: str
) -> None:
    stage.script = [RequestRefused("the constraint is not valid", param="response_format")]

    assert stage.chat(**fields).json()["error"]["param"] == param
