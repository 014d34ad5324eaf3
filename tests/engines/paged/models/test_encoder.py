"""BERT against transformers: hidden states, padding, token types, names in the file."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from engines.paged.checkpoint import Checkpoint, CheckpointUnavailable
from engines.paged.models.encoder import Encoder, Packing
from engines.paged.weights import load
from tests.engines.paged.random_checkpoints import randomize

TEXTS = [[5, 9, 7, 100, 3], [8], [11, 12, 13, 14, 15, 16, 17, 18, 4, 6], [2, 3]]
CONFIGS = {
    "plain": {},
    "one-head-tanh": {"num_attention_heads": 1, "hidden_act": "gelu_new", "type_vocab_size": 3},
    "narrow-heads": {"hidden_size": 60, "num_attention_heads": 12, "layer_norm_eps": 1e-3},
}


def written(folder: Path, **config: object) -> transformers.BertModel:
    sizes = {
        "vocab_size": 131, "hidden_size": 48, "intermediate_size": 70, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 40,
    }  # fmt: skip
    model = transformers.BertModel(transformers.BertConfig(**{**sizes, **config})).eval()
    randomize(model)
    model.save_pretrained(folder)
    return model


def loaded(folder: Path) -> Encoder:
    model = load(Checkpoint(folder), "cpu", torch.float32)
    assert isinstance(model, Encoder)
    return model


def hidden(model: Encoder, texts: list[list[int]], types: list[int] | None = None) -> torch.Tensor:
    ids = torch.tensor([token for text in texts for token in text])
    packing = Packing([len(text) for text in texts], torch.device("cpu"))
    with torch.inference_mode():
        return model(ids, packing, None if types is None else torch.tensor(types))


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_of_any_lengths_have_the_hidden_states_of_transformers(tmp_path: Path, name: str):
    theirs = written(tmp_path, **CONFIGS[name])

    found = hidden(loaded(tmp_path), TEXTS)

    with torch.inference_mode():
        expected = [theirs(torch.tensor([text])).last_hidden_state[0] for text in TEXTS]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_text_does_not_depend_on_what_else_is_in_the_batch(tmp_path: Path):
    written(tmp_path)
    model = loaded(tmp_path)

    together = hidden(model, TEXTS).split([len(text) for text in TEXTS])

    for text, found in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(found, hidden(model, [text]), rtol=1e-5, atol=1e-5)


def test_token_types_tell_the_texts_of_a_pair_apart(tmp_path: Path):
    theirs = written(tmp_path)
    text, types = [5, 6, 7, 8, 9], [0, 0, 0, 1, 1]
    model = loaded(tmp_path)

    found = hidden(model, [text], types)

    with torch.inference_mode():
        output = theirs(torch.tensor([text]), token_type_ids=torch.tensor([types]))
    torch.testing.assert_close(found, output.last_hidden_state[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, hidden(model, [text]))


def test_a_masked_language_model_lends_its_encoder(tmp_path: Path):
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=20,
    )  # fmt: skip
    theirs = transformers.BertForMaskedLM(config).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)

    found = hidden(loaded(tmp_path), [[4, 5, 6]])

    with torch.inference_mode():
        expected = theirs.bert(torch.tensor([[4, 5, 6]])).last_hidden_state[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"), [("position_embedding_type", "relative_key"), ("is_decoder", True)]
)
def test_a_bert_of_another_kind_is_refused(tmp_path: Path, key: str, value: object):
    written(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    with pytest.raises(CheckpointUnavailable, match=key):
        Checkpoint(tmp_path)
