"""Writes the GGUF file: what it says of the model and its tokens, then one tensor after another."""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from engines.checkpoint.architectures import read_shape
from engines.checkpoint.checkpoint_errors import CheckpointUnavailable
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.model_shape import ModelShape
from engines.checkpoint.tensor_files import read_entries
from engines.errors import EngineError, RequestRefused
from engines.gguf.child_work import Far, Tell
from engines.gguf.conversion.metadata import architecture_of, metadata, rope_tensors
from engines.gguf.conversion.special_tokens import SpecialTokens, read_special_tokens
from engines.gguf.conversion.tensors import NewTensor, Tensors
from engines.gguf.conversion.vocabulary import Vocabulary, read_vocabulary

_TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "BF16": gguf.GGMLQuantizationType.BF16,
}
_FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
}
_PHI_3 = re.compile("phi-?3", re.IGNORECASE)
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def write_gguf(folder: Path, target: Path, name: str, tell: Tell) -> None:
    """Convert the checkpoint in `folder`. Raises `RequestRefused` for what cannot be.

    Weights keep their precision; vectors are float32, as llama.cpp wants them."""
    try:
        config = JsonFields.read(folder / "config.json")
        shape = read_shape(config)
        architecture = architecture_of(shape)
        entries = _text_only(read_entries(folder))
        tensors = [*Tensors(shape, entries, architecture).all(), *rope_tensors(shape)]
        vocabulary = read_vocabulary(folder, shape.vocab_size)
        special = read_special_tokens(folder, vocabulary)
    except EngineError as error:
        raise RequestRefused(
            f"the checkpoint cannot be converted: {error.message}", param="modelfile"
        ) from None
    writer = gguf.GGUFWriter(target, architecture)
    writer.add_name(_general_name(name, vocabulary))
    _add_shape(writer, shape, architecture)
    writer.add_file_type(_FILE_TYPES[tensors[0].dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_vocabulary(writer, vocabulary)
    add_special_tokens(writer, special)
    _write(writer, tensors, tell)


def _general_name(name: str, vocabulary: Vocabulary) -> str:
    """The name, such that llama.cpp takes special tokens for what they are.

    It looks for "phi-3" in there, and then lets them swallow the white space after them; and
    it ends if these tokens are missing then."""
    has_tokens = {"</s>", "<unk>", "<s>", "<|endoftext|>"} <= set(vocabulary.texts)
    should_be, is_named = vocabulary.strips_right and has_tokens, _PHI_3.search(name) is not None
    if should_be == is_named:
        return name
    return f"Phi-3 {name}" if should_be else _PHI_3.sub("Phi 3", name)


def _text_only(entries: Any) -> Any:
    """Without the parts of a model that looks at pictures."""
    return {
        name: entry
        for name, entry in entries.items()
        if not name.startswith(("vision_tower.", "multi_modal_projector."))
        and ".vision_tower." not in name
        and ".multi_modal_projector." not in name
    }


def _add_shape(writer: gguf.GGUFWriter, shape: ModelShape, architecture: str) -> None:
    for method, value in metadata(shape, architecture):
        if method == "rope_scaling_type":
            value = gguf.RopeScalingType(value)
        getattr(writer, f"add_{method}")(value)


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Say which tokens there are and how texts become tokens."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.rule)
    writer.add_token_list(vocabulary.texts)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.has_space_prefix)
    else:
        writer.add_token_merges(vocabulary.merges)


def add_special_tokens(writer: gguf.GGUFWriter, special: SpecialTokens) -> None:
    """Say what begins and ends texts, and how conversations are written."""
    for kind, number in special.ids.items():
        getattr(writer, f"add_{kind}_token_id")(number)
    writer.add_add_bos_token(special.adds_bos)
    writer.add_add_eos_token(special.adds_eos)
    if special.chat_template is not None:
        writer.add_chat_template(special.chat_template)


def _write(writer: gguf.GGUFWriter, tensors: list[NewTensor], tell: Tell) -> None:
    total_bytes = 0
    for tensor in tensors:
        num_bytes = int(np.prod(tensor.shape)) * _ITEM_BYTES[tensor.dtype]
        total_bytes += num_bytes
        # The dtype is told by `raw_dtype`; any but uint8 leaves the shape as it is.
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), num_bytes, _TYPES[tensor.dtype]
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done_bytes = 0
    for tensor in tensors:
        numbers = np.ascontiguousarray(tensor.make())
        if numbers.shape != tensor.shape:
            raise CheckpointUnavailable(f"tensor {tensor.name} came out as {numbers.shape}")
        writer.write_tensor_data(numbers)
        done_bytes += numbers.nbytes
        tell(Far(done_bytes, total_bytes))
    writer.close()
