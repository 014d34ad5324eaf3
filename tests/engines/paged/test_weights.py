"""Weights land where they belong, in any layout of files; what does not fit is named."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from engines.checkpoint.tensor_files import INDEX, SINGLE
from engines.errors import Unavailable
from engines.paged.checkpoint import Checkpoint, CheckpointUnavailable, CheckpointUnsupported
from engines.paged.models.decoder import Decoder
from engines.paged.weights import load, num_bytes
from engines.starter import SAFETENSORS_DIR
from tests.engines.paged.forward import Driver
from tests.engines.paged.random_checkpoints import (
    DECODERS,
    SIZES,
    Case,
    randomize,
    reference,
    write,
)

PROMPT = [5, 9, 100, 42, 7, 7, 30, 81]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(Case("Llama"), tmp_path)
    return tmp_path


def rewrite(folder: Path, change, *, config: dict | None = None) -> None:
    """Change a checkpoint's tensors (a dictionary, in place) and its configuration."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))


def loaded(folder: Path, dtype: torch.dtype | None = torch.float32) -> Decoder:
    model = load(Checkpoint(folder), "cpu", dtype)
    assert isinstance(model, Decoder)
    return model


def logits(model: Decoder) -> torch.Tensor:
    return Driver(model).prompt(PROMPT)[1]


def expected_logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return reference(folder)(torch.tensor([PROMPT])).logits[0]


def test_missing_tensors_are_named(folder: Path):
    rewrite(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))

    with pytest.raises(
        CheckpointUnavailable, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight;"
    ):
        loaded(folder)


def test_tensors_that_have_no_place_are_named(folder: Path):
    rewrite(folder, lambda tensors: tensors.update({"model.layers.0.gate": torch.zeros(2)}))

    with pytest.raises(CheckpointUnavailable, match=r"have model\.layers\.0\.gate, for which"):
        loaded(folder)


def test_of_many_wrong_names_the_first_few_are_shown(folder: Path):
    rewrite(folder, lambda tensors: None, config={"num_hidden_layers": 5})

    with pytest.raises(CheckpointUnavailable, match=r"model\.layers\.3\.\S+ and 14 more"):
        loaded(folder)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(folder: Path):
    name = "model.layers.0.self_attn.k_proj.weight"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(24, 40)}))

    with pytest.raises(
        CheckpointUnavailable, match=rf"{name}'.* \[24, 40\]; .* makes it \[24, 48\]"
    ):
        loaded(folder)


def test_a_checkpoint_that_its_configuration_does_not_fit_is_refused(folder: Path):
    rewrite(folder, lambda tensors: None, config={"vocab_size": 204})

    with pytest.raises(
        CheckpointUnavailable, match=r"\[203, 48\]; config.json makes it \[204, 48\]"
    ):
        loaded(folder)


def test_weights_of_eight_bits_are_refused_as_quantized(folder: Path):
    name = "model.layers.0.mlp.down_proj.weight"

    def shrink(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)

    rewrite(folder, shrink)

    with pytest.raises(CheckpointUnsupported, match=rf"{name}' is F8_E4M3.*quantized"):
        loaded(folder)


def test_a_file_that_shrinks_after_its_header_was_read_is_named(folder: Path):
    checkpoint = Checkpoint(folder)
    assert checkpoint.entries
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[: len(content) // 2])

    with pytest.raises(CheckpointUnavailable, match=f"{SINGLE} cannot be read"):
        load(checkpoint, "cpu", torch.float32)


def test_fused_tensors_are_read_for_a_family_that_has_them_apart(folder: Path):
    before = logits(loaded(folder))

    def fuse(tensors: dict[str, torch.Tensor]) -> None:
        for layer in range(SIZES["num_hidden_layers"]):
            for whole, parts in (
                ("self_attn.qkv_proj", ("q_proj", "k_proj", "v_proj")),
                ("mlp.gate_up_proj", ("gate_proj", "up_proj")),
            ):
                start = f"model.layers.{layer}.{whole.partition('.')[0]}"
                pieces = [tensors.pop(f"{start}.{part}.weight") for part in parts]
                tensors[f"model.layers.{layer}.{whole}.weight"] = torch.cat(pieces)

    rewrite(folder, fuse)

    assert torch.equal(logits(loaded(folder)), before)


def test_separate_tensors_are_read_for_a_family_that_has_them_fused(tmp_path: Path):
    write(Case("Phi3"), tmp_path)
    before = logits(loaded(tmp_path))

    def separate(tensors: dict[str, torch.Tensor]) -> None:
        for layer in range(SIZES["num_hidden_layers"]):
            start = f"model.layers.{layer}"
            q, k, v = tensors.pop(f"{start}.self_attn.qkv_proj.weight").split([48, 24, 24])
            gate, up = tensors.pop(f"{start}.mlp.gate_up_proj.weight").split([72, 72])
            for name, part in (("q", q), ("k", k), ("v", v)):
                tensors[f"{start}.self_attn.{name}_proj.weight"] = part.clone()
            tensors[f"{start}.mlp.gate_proj.weight"] = gate.clone()
            tensors[f"{start}.mlp.up_proj.weight"] = up.clone()

    rewrite(tmp_path, separate)

    assert torch.equal(logits(loaded(tmp_path)), before)


def test_tensors_without_the_models_prefix_are_read(folder: Path):
    before = logits(loaded(folder))

    def shorten(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    rewrite(folder, shorten)

    assert torch.equal(logits(loaded(folder)), before)


def test_tables_that_old_files_carry_along_are_passed_over(folder: Path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(6)}))

    loaded(folder)


def test_a_tied_model_shares_memory_and_may_carry_its_head_twice(tmp_path: Path):
    write(Case("Llama", {"tie_word_embeddings": True}), tmp_path)
    table = "model.embed_tokens.weight"
    before = logits(loaded(tmp_path))

    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[table].clone()}))

    model = loaded(tmp_path)
    assert torch.equal(logits(model), before)
    assert model.head is None


def test_a_tied_model_may_have_its_table_under_the_heads_name_only(tmp_path: Path):
    write(Case("Llama", {"tie_word_embeddings": True}), tmp_path)
    before = logits(loaded(tmp_path))

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    rewrite(tmp_path, rename)

    assert torch.equal(logits(loaded(tmp_path)), before)


def test_a_tied_model_with_another_head_in_its_file_is_refused(tmp_path: Path):
    write(Case("Llama", {"tie_word_embeddings": True}), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(203, 48)}))

    with pytest.raises(CheckpointUnavailable, match="set tie_word_embeddings to false"):
        loaded(tmp_path)


def test_the_text_part_of_a_multimodal_gemma_3_is_served(tmp_path: Path):
    text = {**SIZES, "head_dim": 12, "sliding_window": 5, "vocab_size": 210}
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4,
        boi_token_index=200, eoi_token_index=201, image_token_index=202,
    )  # fmt: skip
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval()
    randomize(theirs, is_offset=True)
    theirs.save_pretrained(tmp_path)

    found = logits(loaded(tmp_path))

    with torch.inference_mode():
        expected = theirs(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "phi3"])
def test_half_precision_is_close_to_full(tmp_path: Path, name: str):
    write(DECODERS[name], tmp_path, dtype=torch.bfloat16)
    checkpoint = Checkpoint(tmp_path)

    model = loaded(tmp_path, dtype=None)

    assert checkpoint.dtype == "bfloat16"
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    found, expected = logits(model), expected_logits(tmp_path)
    assert found.dtype == torch.float32
    # Eight bits of mantissa, through three layers.
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_weights_in_another_type_are_converted(folder: Path):
    assert {each.dtype for each in loaded(folder, torch.float16).parameters()} == {torch.float16}


def test_the_memory_is_what_the_checkpoint_said(folder: Path):
    checkpoint = Checkpoint(folder)

    # Rows that pad the vocabulary to a multiple of 64 come on top, in both tables.
    padding = 2 * (256 - 203) * 48
    assert num_bytes(loaded(folder)) == checkpoint.weight_bytes(torch.float32) + 4 * padding
    assert checkpoint.size_bytes == (folder / SINGLE).stat().st_size


def test_how_far_loading_is_can_be_heard(tmp_path: Path):
    write(Case("Llama", shard_bytes=40_000), tmp_path)
    assert (tmp_path / INDEX).exists()
    heard: list[float] = []

    load(Checkpoint(tmp_path), "cpu", report=heard.append)

    assert heard == sorted(heard)
    assert heard[-1] == 1.0


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "qwen3", "phi3-longrope"])
def test_dummy_weights_need_no_file_and_are_the_same_every_time(tmp_path: Path, name: str):
    write(DECODERS[name], tmp_path)
    (tmp_path / SINGLE).unlink()

    models = [load(Checkpoint(tmp_path), "cpu", torch.float32, "dummy") for _ in range(2)]

    first, second = (logits(model) for model in models if isinstance(model, Decoder))
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()
    assert first.std() > 0.01


def test_a_dummy_encoder_is_finite(tmp_path: Path):
    config = transformers.BertConfig(num_hidden_layers=1, hidden_size=24, num_attention_heads=2)
    (tmp_path / "config.json").write_text(
        json.dumps({**config.to_dict(), "architectures": ["BertModel"]})
    )

    model = load(Checkpoint(tmp_path), "cpu", torch.float32, "dummy")

    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_a_context_beyond_the_models_is_refused(folder: Path):
    with pytest.raises(CheckpointUnsupported, match="context_tokens is 129; expected 1 to 128"):
        load(Checkpoint(folder), "cpu", context_tokens=129)


def test_a_model_that_does_not_fit_says_how_much_it_takes(folder: Path):
    # 16 million tokens of a million numbers: no machine has that memory.
    config = {"vocab_size": 2**24, "hidden_size": 2**20, "num_attention_heads": 2**12}
    rewrite(folder, lambda tensors: None, config=config | {"num_key_value_heads": 2**12})

    with pytest.raises(Unavailable, match=r"no memory on cpu .* take \d+\.\d GB in bfloat16"):
        load(Checkpoint(folder), "cpu", torch.bfloat16, "dummy")


def test_the_starter_model_says_what_it_says_in_transformers():
    checkpoint = Checkpoint(SAFETENSORS_DIR)
    theirs = reference(SAFETENSORS_DIR)
    tokenizer = transformers.AutoTokenizer.from_pretrained(SAFETENSORS_DIR)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]

    found = Driver(loaded(SAFETENSORS_DIR)).greedy(prompt, 16, chunk=10)

    expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
    expected = expected[0, len(prompt) :].tolist()
    assert found[: len(expected)] == expected
    assert "Paris" in tokenizer.decode(expected)
    assert expected[-1] in checkpoint.eos_token_ids


def test_the_starter_model_runs_in_its_own_half_precision():
    model = loaded(SAFETENSORS_DIR, dtype=None)

    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert torch.isfinite(logits(model)).all()
