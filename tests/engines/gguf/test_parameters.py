"""Parameters of Modelfiles and of `params` layers."""

import pytest

from engines.errors import RequestRefused
from engines.gguf.parameters import (
    number_of,
    read_parameter,
    read_parameters,
    sampling_of,
    stops_of,
)
from engines.protocol import Sampling


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", "1", 1.0),
        ("num_ctx", "4096", 4096),
        ("use_mmap", "False", False),
        ("stop", "<|im_end|>", "<|im_end|>"),
        ("mirostat", "2", 2),  # of old Modelfiles
    ],
)
def test_a_value_is_read_as_what_its_parameter_is(name: str, text: str, value: object) -> None:
    assert read_parameter(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("temprature", "1", "there is no parameter 'temprature' (of use here: frequency_penalty"),
        ("temperature", "warm", "parameter temperature is 'warm'; it must be a number"),
        ("temperature", "nan", "must be a number"),
        ("temperature", "-1", "it can be 0 to 100"),
        ("num_ctx", "4096.5", "must be a whole number"),
        ("num_ctx", "0", "it can be 1 to"),
        ("use_mmap", "maybe", "must be true or false"),
        ("top_p", "2", "it can be 0 to 1"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_can_be(name: str, text: str, said: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_parameter(name, text)

    assert said in refused.value.message


def test_a_layer_is_read_and_what_nobody_knows_is_left_out() -> None:
    content = b'{"stop":["a","b"],"temperature":1,"top_k":20.0,"future":{"x":1},"num_ctx":null}'

    assert read_parameters(content, "x") == {"stop": ["a", "b"], "temperature": 1.0, "top_k": 20}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{", b"[" * 100_000, b'{"stop":1}', b'{"stop":[1]}', b'{"stop":[""]}',
        b'{"temperature":"hot"}', b'{"top_k":true}', b'{"top_k":1.5}', b'{"top_p":1e400}',
        b'{"num_ctx":99999999999}',
    ],
)  # fmt: skip
def test_a_layer_that_lies_is_refused(content: bytes) -> None:
    with pytest.raises(RequestRefused):
        read_parameters(content, "model 'x'")


def test_what_a_request_says_goes_before_the_models_parameters() -> None:
    parameters = read_parameters(b'{"temperature":0.5,"top_k":9,"seed":-1}', "x")

    found = sampling_of(parameters, Sampling(temperature=0.0))

    assert (found.temperature, found.top_k, found.top_p, found.seed) == (0.0, 9, None, None)
    untouched = Sampling(temperature=0.0)
    assert sampling_of({}, untouched) is untouched


def test_counts_below_one_mean_as_you_like() -> None:
    assert number_of({"num_predict": -1}, "num_predict") is None
    assert number_of({"num_predict": 7}, "num_predict") == 7
    assert number_of({}, "num_predict") is None
    assert stops_of({}) == ()
