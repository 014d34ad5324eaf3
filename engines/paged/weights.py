"""Loads a checkpoint's weights onto a device.

Everything that can be wrong is found before memory is taken: names and shapes come from
the files' headers, the model they must fit from a twin without memory. Then each tensor
goes from its mapped file straight to its place, which may be a part of a larger matrix,
so there is never a second copy of the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engines.checkpoint.tensor_files import TensorEntry
from engines.checkpoint.tensor_names import TensorNames, check_names
from engines.errors import Unavailable
from engines.paged.checkpoint import Checkpoint, CheckpointUnavailable, CheckpointUnsupported
from engines.paged.layers.linear import Linear, Placement
from engines.paged.models.decoder import Decoder
from engines.paged.models.encoder import Encoder

LoadFormat = Literal["auto", "dummy"]
Model = Decoder | Encoder

DUMMY_SEED = 0
READABLE = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True, slots=True)
class Filling:
    """One tensor of the checkpoint and the memory that it fills."""

    name: str
    target: Tensor


def load(
    checkpoint: Checkpoint,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    load_format: LoadFormat = "auto",
    *,
    context_tokens: int | None = None,
    report: Callable[[float], None] | None = None,
) -> Model:
    """Return a model with its weights; `dtype` None is the checkpoint's own.

    `context_tokens` is the longest sequence that will be run, at most the checkpoint's.
    `load_format="dummy"` reads no weights: they are random, the same every time, and of
    a scale that gives finite scores. `report` hears how far loading is, 0 to 1.

    Raises `CheckpointUnavailable`, `CheckpointUnsupported`, or `Unavailable` where the
    device lacks the memory.
    """
    placement = Placement(torch.device(device), dtype or getattr(torch, checkpoint.dtype))
    context = _context(checkpoint, context_tokens)
    if load_format == "dummy":
        model = _allocate(checkpoint, placement, context)
        _randomize(model)
        return model
    names = TensorNames(checkpoint.shape, checkpoint.entries)
    twin = _make(checkpoint, Placement(torch.device("meta"), placement.dtype), context)
    _check(checkpoint, names, list(_fillings(twin, names, checkpoint)))
    model = _allocate(checkpoint, placement, context)
    _zero_padding(model)
    _fill(checkpoint, list(_fillings(model, names, checkpoint)), report)
    _check_tied(checkpoint, names, model)
    return model


def _context(checkpoint: Checkpoint, context_tokens: int | None) -> int:
    longest = checkpoint.shape.context_tokens
    if context_tokens is None:
        return longest
    if not 1 <= context_tokens <= longest:
        raise CheckpointUnsupported(
            f"context_tokens is {context_tokens}; expected 1 to {longest}, which is as far as this "
            "model goes"
        )
    return context_tokens


def _make(checkpoint: Checkpoint, placement: Placement, context_tokens: int) -> Model:
    if checkpoint.shape.is_encoder:
        return Encoder(checkpoint.shape, placement)
    return Decoder(checkpoint.shape, placement, context_tokens=context_tokens)


def _allocate(checkpoint: Checkpoint, placement: Placement, context_tokens: int) -> Model:
    try:
        return _make(checkpoint, placement, context_tokens)
    except RuntimeError as error:  # torch.OutOfMemoryError is one; on a CPU there is no other
        gigabytes = checkpoint.weight_bytes(placement.dtype) / 1e9
        reason = str(error).partition("\n")[0]
        raise Unavailable(
            f"no memory on {placement.device} for {checkpoint.folder.name}, whose weights take "
            f"{gigabytes:.1f} GB in {str(placement.dtype).removeprefix('torch.')}: {reason}"
        ) from error


def _fillings(model: Model, names: TensorNames, checkpoint: Checkpoint) -> Iterator[Filling]:
    for weight, parameter in model.named_parameters():
        source = names.source(weight)
        target = parameter.data
        if weight in ("embedding.weight", "head.weight"):
            target = target[: checkpoint.shape.vocab_size]
        if not source.parts or source.whole in checkpoint.entries:
            yield Filling(source.whole, target)
            continue
        owner = model.get_submodule(weight.rpartition(".")[0])
        assert isinstance(owner, Linear)
        pieces = target.split(owner.output_sizes)
        for name, piece in zip(source.parts, pieces, strict=True):
            yield Filling(name, piece)


def _check(checkpoint: Checkpoint, names: TensorNames, fillings: list[Filling]) -> None:
    check_names((filling.name for filling in fillings), checkpoint.entries, names)
    for filling in fillings:
        entry, expected = checkpoint.entries[filling.name], tuple(filling.target.shape)
        if entry.shape != expected:
            raise CheckpointUnavailable(
                f"{entry.file.name}: tensor {entry.name!r} has the shape {list(entry.shape)}; "
                f"config.json makes it {list(expected)}"
            )
        if entry.dtype not in READABLE:
            raise CheckpointUnsupported(
                f"{entry.file.name}: tensor {entry.name!r} is {entry.dtype}, so the weights are "
                "quantized, which this engine cannot read yet; use the model's unquantized weights"
            )


def _fill(
    checkpoint: Checkpoint, fillings: list[Filling], report: Callable[[float], None] | None
) -> None:
    targets = {filling.name: filling.target for filling in fillings}
    # In the order of the bytes, so that a disk reads forward.
    entries = [entry for entry in checkpoint.entries.values() if entry.name in targets]
    total, done = sum(entry.end - entry.begin for entry in entries), 0
    for file, inside in groupby(entries, key=lambda entry: entry.file):
        try:
            with safe_open(file, framework="pt", device="cpu") as tensors:
                for entry in inside:
                    targets[entry.name].copy_(tensors.get_tensor(entry.name))
                    done += entry.end - entry.begin
                    if report is not None:
                        report(done / total)
        except (SafetensorError, OSError) as error:
            raise CheckpointUnavailable(f"{file.name} cannot be read: {error}") from error


def _check_tied(checkpoint: Checkpoint, names: TensorNames, model: Model) -> None:
    """Refuse a tied model whose file has a head of its own that is not the embedding."""
    head: TensorEntry | None = checkpoint.entries.get(names.head)
    if not isinstance(model, Decoder) or not checkpoint.shape.is_tied or head is None:
        return
    embedding = model.embedding.weight[: checkpoint.shape.vocab_size]
    with safe_open(head.file, framework="pt", device="cpu") as tensors:
        stored: Tensor = tensors.get_tensor(names.head)
    # Row by row would be exact, and slow on a device; a few rows tell two matrices apart.
    rows = torch.linspace(0, len(embedding) - 1, steps=min(len(embedding), 64)).long()
    same_shape = stored.shape == embedding.shape
    taken = stored[rows].to(embedding.dtype) if same_shape else stored
    if not same_shape or not torch.equal(taken, embedding[rows.to(embedding.device)].cpu()):
        raise CheckpointUnavailable(
            f"{head.file.name}: tensor {head.name!r} is not the embedding, though config.json "
            "ties them; set tie_word_embeddings to false"
        )


def _zero_padding(model: Model) -> None:
    if not isinstance(model, Decoder):
        return
    for table in (model.embedding, model.head):
        if table is not None:
            table.weight.data[model.shape.vocab_size :].zero_()


def _randomize(model: Model) -> None:
    """Fill a model with numbers that keep their scale from layer to layer."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(DUMMY_SEED)
    for name, parameter in model.named_parameters():
        weight = parameter.data
        if name.endswith("bias"):
            weight.zero_()
        elif weight.dim() == 1:
            weight.fill_(1.0 - model.shape.norm_offset)
        else:
            weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
    _zero_padding(model)


def num_bytes(module: nn.Module) -> int:
    """Memory that a model's weights take, each counted once."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())
