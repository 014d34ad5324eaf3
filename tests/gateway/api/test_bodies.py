import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from gateway.api.bodies import MAX_DEPTH, decode_body
from gateway.errors import BadRequest


class Leaf(Struct, forbid_unknown_fields=True):
    size: int = 0


class Body(Struct, forbid_unknown_fields=True):
    name: str = ""
    leaf: Leaf | None = None
    any: Any = None


DECODER = msgspec.json.Decoder(Body)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_any_json_is_decoded_or_a_bad_request(value: object) -> None:
    raw = json.dumps({"any": value}).encode()

    try:
        assert decode_body(raw, DECODER).name == ""
    except BadRequest as error:
        # json.dumps writes NaN, and lone surrogates: neither is JSON.
        assert b"NaN" in raw or b"Infinity" in raw or b"\\ud" in raw, error.message


@given(st.binary())
def test_any_bytes_are_decoded_or_a_bad_request(raw: bytes) -> None:
    try:
        decode_body(raw, DECODER)
    except BadRequest as error:
        assert 0 < len(error.message) < 400


@given(st.text(), st.text())
def test_a_key_may_be_anything_and_only_once(key: str, other: str) -> None:
    encoded, second = json.dumps(key), json.dumps(other)
    raw = f'{{"any": {{{encoded}: 1, {second}: 2}}}}'.encode()

    if key == other:
        with pytest.raises(BadRequest) as raised:
            decode_body(raw, DECODER)
        assert "appears twice" in raised.value.message or "JSON" in raised.value.message
    elif "\\ud" not in encoded + second:
        decode_body(raw, DECODER)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_the_depth_is_bounded_and_brackets_in_strings_do_not_count(opening: str) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening]

    def nested(depth: int) -> bytes:
        return f'{{"any": {opening * depth}1{closing * depth}}}'.encode()

    decode_body(nested(MAX_DEPTH - 1), DECODER)
    decode_body(json.dumps({"name": '[{"\\' * 1000}).encode(), DECODER)
    with pytest.raises(BadRequest, match="nested deeper than 200 levels"):
        decode_body(nested(MAX_DEPTH), DECODER)


@pytest.mark.parametrize(
    ("raw", "param", "message"),
    [
        (b'{"nmae": ""}', "nmae", "nmae is not a field of this request; did you mean 'name'?"),
        (b'{"leaf": {"x": 1}}', "leaf.x", "leaf.x is not a field of this request; docs/api.md"),
        (b'{"leaf": {"size": "1"}}', "leaf.size", "leaf.size must be an integer, not a string"),
        (b'{"leaf": 3}', "leaf", "leaf must be an object or null, not an integer"),
        (b"[]", None, "the body must be an object, not a list"),
        (b"{", None, "the body is not valid JSON: input data was truncated"),
        (b'{"name" 1}', None, "the body is not valid JSON: JSON is malformed: expected ':'"),
    ],
)
def test_what_is_wrong_is_said_in_words(raw: bytes, param: str | None, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode_body(raw, DECODER)

    assert raised.value.param == param
    assert raised.value.message.startswith(message)
