"""What a model's name adds to requests and to how it is loaded."""

from pathlib import Path

import pytest

from engines.errors import Unavailable
from engines.gguf.config import GgufConfig
from engines.gguf.library import Library
from engines.gguf.recipe import NOTHING, Recipe, Said, recipe_of
from engines.protocol import GenerateRequest, Message, Sampling, Text
from tests.engines.gguf.ollama_folder import put_model

NAME = "registry.ollama.ai/library/x/latest"


def asking(*said: tuple[str, str], **fields: object) -> GenerateRequest:
    messages = [Message(role=role, parts=(Text(text),)) for role, text in said]
    return GenerateRequest(id="1", model="x", messages=messages, **fields)  # type: ignore[arg-type]


def texts(request: GenerateRequest) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


def read(folder: Path, **layers: bytes) -> Recipe:
    put_model(folder, NAME, {"model": b"GGUF", **layers}, config=b'{"requires":"0.6","future":1}')
    return recipe_of(Library(folder, {}).look_up("x"))


def test_a_plain_file_adds_nothing() -> None:
    request = asking(("user", "hi"))
    config = GgufConfig()

    assert NOTHING.applied(request) is request
    assert NOTHING.configured(config) is config


def test_the_small_layers_of_a_manifest_are_read(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        params=b'{"temperature":0.5,"stop":["END"],"num_ctx":64}',
        system=b"be kind",
        messages=b'[{"role":"user","content":"1+1"},{"role":"assistant","content":"2"}]',
        template=b"{{ .Prompt }}",
        license=b"MIT",
        adapter=b"lora",
    )

    assert recipe.parameters == {"temperature": 0.5, "stop": ["END"], "num_ctx": 64}
    assert recipe.system == "be kind"
    assert recipe.messages == (Said("user", "1+1"), Said("assistant", "2"))
    assert recipe.template == "{{ .Prompt }}"
    assert recipe.licenses == ("MIT",)
    assert recipe.settings.requires == "0.6"
    assert [path.read_bytes() for path in recipe.adapters] == [b"lora"]


@pytest.mark.parametrize(
    "layers",
    [
        {"params": b'{"top_k":"many"}'},
        {"messages": b"{}"},
        {"messages": b'[{"role":"tool","content":"x"}]'},
    ],
)
def test_a_layer_that_cannot_be_used_is_the_models_fault(
    tmp_path: Path, layers: dict[str, bytes]
) -> None:
    with pytest.raises(Unavailable, match="model 'x:latest' cannot be used"):
        read(tmp_path, **layers)


def test_a_request_gets_what_it_does_not_say_itself() -> None:
    recipe = Recipe(parameters={"temperature": 0.5, "top_k": 3, "stop": ["END"], "num_predict": 9})

    silent = recipe.applied(asking(("user", "hi")))
    said = recipe.applied(
        asking(("user", "hi"), sampling=Sampling(temperature=0.0), stop=["."], max_tokens=2)
    )

    assert (silent.sampling.temperature, silent.stop, silent.max_tokens) == (0.5, ("END",), 9)
    assert (said.sampling.temperature, said.sampling.top_k) == (0.0, 3)
    assert (said.stop, said.max_tokens) == (["."], 2)


def test_the_system_message_and_the_examples_come_first() -> None:
    recipe = Recipe(system="be kind", messages=(Said("user", "1+1"), Said("assistant", "2")))

    assert texts(recipe.applied(asking(("user", "2+2")))) == [
        ("system", "be kind"),
        ("user", "1+1"),
        ("assistant", "2"),
        ("user", "2+2"),
    ]
    assert texts(recipe.applied(asking(("system", "be short"), ("user", "2+2")))) == [
        ("user", "1+1"),
        ("assistant", "2"),
        ("system", "be short"),
        ("user", "2+2"),
    ]


def test_a_raw_prompt_is_left_alone() -> None:
    request = GenerateRequest(id="1", model="x", prompt="Once")

    assert Recipe(system="be kind").applied(request) is request


def test_a_model_may_ask_for_less_than_the_operator_allows() -> None:
    recipe = Recipe(parameters={"num_ctx": 1000, "num_thread": 3, "num_batch": 4096})

    free = recipe.configured(GgufConfig())
    bound = recipe.configured(GgufConfig(context_tokens=500, num_threads=1))

    assert (free.context_tokens, free.num_threads, free.max_batch_tokens) == (1000, 3, 512)
    assert (bound.context_tokens, bound.num_threads) == (500, 1)


def test_layers_on_a_gpu_are_the_models_to_say_where_the_policy_does_not() -> None:
    none, any_number = Recipe(parameters={"num_gpu": 0}), Recipe(parameters={"num_gpu": -1})

    assert none.configured(GgufConfig()).num_gpu_layers == 0
    assert none.configured(GgufConfig(num_gpu_layers=7)).num_gpu_layers == 7
    assert any_number.configured(GgufConfig()).num_gpu_layers is None
