import msgspec
import pytest

from engines.errors import RequestRefused
from engines.protocol import Sampling
from engines.remote.edits import Edited, Edits, edited, with_model
from tests.engines.remote.conftest import relaying

ODD = (
    b'{"z": [1, 2.50, 1e400], "model":"public" ,"a":{"b" : "\\u00e9\\/"},'
    b'"big":12345678901234567890123,"n":null}'
)


def sent(body: bytes, path: str = "chat/completions", **fields: object) -> Edited:
    request = relaying(body, path, **fields)
    assert request.wire is not None
    return edited(request, request.wire, Edits())


def test_every_value_but_the_models_name_is_the_same_bytes() -> None:
    result = sent(ODD)

    assert result.public_model == "public"
    assert result.body == (
        b'{"z":[1, 2.50, 1e400],"model":"upstream-model","a":{"b" : "\\u00e9\\/"},'
        b'"big":12345678901234567890123,"n":null}'
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"p"}', {"max_tokens": 10}),
        (b'{"model":"p","max_tokens":null}', {"max_tokens": 10}),
        (b'{"model":"p","max_tokens":5}', {"max_tokens": 5}),
        (b'{"model":"p","max_tokens":50}', {"max_tokens": 10}),
        (b'{"model":"p","max_completion_tokens":50}', {"max_completion_tokens": 10}),
        (b'{"model":"p","max_tokens":-1}', {"max_tokens": 10}),
        (b'{"model":"p","max_tokens":0}', {"max_tokens": 10}),
        (b'{"model":"p","max_tokens":1e9}', {"max_tokens": 10}),
        (b'{"model":"p","n_predict":999}', {"n_predict": 10}),
        (b'{"model":"p","max_tokens":5,"n_predict":-1}', {"max_tokens": 5, "n_predict": 10}),
        (b'{"model":"p","max_new_tokens":"x"}', {"max_new_tokens": 10}),
        (b'{"model":"p","n_predict":%b}' % (b"9" * 5000), {"n_predict": 10}),
        (b'{"model":"p","n_predict":-%b}' % (b"9" * 5000), {"n_predict": 10}),
    ],
)
def test_no_name_of_the_cap_is_a_way_round_it(body: bytes, expected: dict[str, int]) -> None:
    fields = msgspec.json.decode(sent(body, max_tokens=10).body, type=dict[str, object])

    del fields["model"]
    assert fields == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [("completions", "max_tokens"), ("responses", "max_output_tokens"), ("messages", "max_tokens")],
)
def test_a_cap_is_called_what_the_path_calls_it(path: str, name: str) -> None:
    assert msgspec.json.decode(sent(b'{"model":"p"}', path, max_tokens=3).body)[name] == 3


def test_a_path_that_nobody_knows_gets_no_cap_that_it_does_not_have() -> None:
    assert b"max" not in sent(b'{"model":"p"}', "audio/speech", max_tokens=3).body


def test_chats_cap_may_be_called_as_the_upstream_wants() -> None:
    request = relaying(b'{"model":"p"}', max_tokens=3)
    assert request.wire is not None

    result = edited(request, request.wire, Edits(cap_field="max_completion_tokens"))

    assert msgspec.json.decode(result.body)["max_completion_tokens"] == 3


def test_defaults_fill_only_what_the_client_left_open() -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, repeat_penalty=1.1, seed=4)

    body = msgspec.json.decode(
        sent(b'{"model":"p","temperature":0,"top_p":null}', sampling=sampling).body
    )

    assert body == {
        "model": "upstream-model",
        "temperature": 0,
        "top_p": 0.9,
        "repetition_penalty": 1.1,
        "seed": 4,
    }


@pytest.mark.parametrize(
    ("options", "hides", "expected"),
    [
        (b"", True, {"include_usage": True}),
        (b',"stream_options":null', True, {"include_usage": True}),
        (b',"stream_options":{"x":1}', True, {"x": 1, "include_usage": True}),
        (b',"stream_options":{"include_usage":false}', True, {"include_usage": True}),
        (b',"stream_options":{"include_usage":true}', False, {"include_usage": True}),
    ],
)
def test_a_stream_is_asked_for_its_counts(
    options: bytes, hides: bool, expected: dict[str, object]
) -> None:
    result = sent(b'{"model":"p","stream":true%b}' % options)

    assert result.streams
    assert result.hides_usage is hides
    assert msgspec.json.decode(result.body)["stream_options"] == expected


@pytest.mark.parametrize("value", [b'"x"', b"1", b"1e400", b"true", b"[]", b'[{"a":1}]'])
def test_stream_options_that_nothing_can_be_written_into_are_refused(value: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        sent(b'{"model":"p","stream":true,"stream_options":%b}' % value)

    assert caught.value.param == "stream_options"
    assert value in sent(b'{"model":"p","stream_options":%b}' % value).body  # nobody's business


@pytest.mark.parametrize("value", [b'"true"', b'"false"', b"1", b"0", b"1e400", b"[]", b"{}"])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_that_upstreams_read_in_several_ways_is_refused(value: bytes, path: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        sent(b'{"model":"p","stream":%b}' % value, path)

    assert caught.value.param == "stream"
    assert value in sent(b'{"model":"p","stream":%b}' % value, "responses").body


@pytest.mark.parametrize("value", [b"false", b"null"])
def test_no_stream_can_be_said_in_two_ways(value: bytes) -> None:
    assert not sent(b'{"model":"p","stream":%b}' % value).streams


def test_an_upstream_that_refuses_to_be_asked_is_not() -> None:
    request = relaying(b'{"model":"p","stream":true}')
    assert request.wire is not None

    result = edited(request, request.wire, Edits(ask_for_usage=False))

    assert b"stream_options" not in result.body
    assert not result.hides_usage


def test_other_paths_are_not_asked_for_counts_in_words_they_do_not_have() -> None:
    result = sent(b'{"model":"p","stream":true}', "responses", sampling=Sampling(temperature=1))

    assert result.streams
    assert result.body == b'{"model":"upstream-model","stream":true}'


def test_a_body_without_a_model_gets_none() -> None:
    assert sent(b'{"x":1}', "files").body == b'{"x":1}'
    assert sent(b"", "files").body == b""


def test_a_model_is_written_into_a_body() -> None:
    assert with_model(b'{"input":"a","model":"p"}', 'q"') == (b'{"input":"a","model":"q\\""}', "p")
