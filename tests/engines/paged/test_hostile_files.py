"""Whatever stands in a checkpoint's files, it is read or refused with a message."""

import contextlib
import copy
import json
import struct
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from engines.checkpoint.architectures import FAMILIES, read_shape
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.tensor_files import SINGLE, read_entries
from engines.errors import EngineError
from engines.paged.checkpoint import Checkpoint
from tests.engines.paged.random_checkpoints import DECODERS, make

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = (
    "llama-llama3", "qwen2", "qwen3", "mistral-windowed", "gemma2", "gemma3", "phi3-longrope",
)  # fmt: skip


def written_config(name: str) -> dict[str, Any]:
    model = make(DECODERS[name])
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    return json.loads(json.dumps(config))


CONFIGS = [written_config(name) for name in NAMES]
KEPT = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@KEPT
@given(data=st.data())
def test_any_value_under_any_key_of_a_configuration(data: st.DataObject):
    config: dict[str, Any] = copy.deepcopy(data.draw(st.sampled_from(CONFIGS)))
    ropes = config["rope_parameters"]
    owner = data.draw(st.sampled_from([config, ropes]))
    for _ in range(data.draw(st.integers(1, 3))):
        owner[data.draw(st.sampled_from(sorted(owner)))] = data.draw(JSON)
    if data.draw(st.booleans()):
        config["architectures"] = [data.draw(st.sampled_from(sorted(FAMILIES)))]

    with contextlib.suppress(EngineError):
        shape = read_shape(JsonFields("config.json", config))
        assert shape.num_parameters > 0


@KEPT
@given(start=st.integers(0, 2**64 - 1) | st.integers(0, 400), content=st.binary(max_size=300))
def test_any_bytes_in_place_of_weights(tmp_path: Path, start: int, content: bytes):
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", start) + content)

    with contextlib.suppress(EngineError):
        read_entries(tmp_path)


@KEPT
@given(position=st.integers(0, 600), value=st.integers(0, 255))
def test_any_byte_of_a_file_changed(tmp_path: Path, position: int, value: int):
    save_file({"a": torch.zeros(4, 3), "b": torch.zeros(2)}, tmp_path / SINGLE)
    content = bytearray((tmp_path / SINGLE).read_bytes())
    content[position % len(content)] = value
    (tmp_path / SINGLE).write_bytes(content)

    with contextlib.suppress(EngineError):
        read_entries(tmp_path)


@KEPT
@given(
    name=st.sampled_from(
        ["generation_config", "tokenizer_config", "modules", "sentence_bert_config"]
    ),
    content=JSON | st.dictionaries(st.sampled_from(["eos_token_id", "temperature", "top_k"]), JSON),
)
def test_anything_in_the_small_files(tmp_path: Path, name: str, content: Any):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[0]))
    (tmp_path / f"{name}.json").write_text(json.dumps(content))

    with contextlib.suppress(EngineError):
        checkpoint = Checkpoint(tmp_path)
        _ = checkpoint.eos_token_ids, checkpoint.default_sampling, checkpoint.capabilities
