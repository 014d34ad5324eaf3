import json
from pathlib import Path

import pytest

from gateway.bench.roofline import (
    GPUS,
    Machine,
    ModelShape,
    RooflineUnknown,
    Work,
    decode_seconds,
    ideal_seconds,
    prefill_seconds,
    shape_of,
)
from gateway.bench.workloads.nano import Nano

# As measured on one H100 with a copy and a bf16 matrix product.
H100 = Machine(bytes_per_second=3.0e12, flops_per_second=8e14, source="measured")
LLAMA_8B = ModelShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336, vocab=128256
)
QWEN3_06B = ModelShape(
    layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, intermediate=3072, vocab=151936
)


def test_weights_and_kv_bytes_are_those_of_the_published_models() -> None:
    assert LLAMA_8B.weights == pytest.approx(7.50e9, rel=0.001)  # without its embedding table
    assert 32 * LLAMA_8B.kv_bytes_per_layer == 128 * 1024
    assert QWEN3_06B.weights == pytest.approx(0.596e9, rel=0.001)
    assert 28 * QWEN3_06B.kv_bytes_per_layer == 112 * 1024


@pytest.mark.parametrize(
    ("batch", "milliseconds"), [(1, 5.05), (8, 5.36), (64, 7.87), (256, 16.46)]
)
def test_a_decode_step_reads_the_weights_once_and_every_context(
    batch: int, milliseconds: float
) -> None:
    least = decode_seconds(LLAMA_8B, H100, batch=batch, context=1024)

    # By hand: (7.504e9 weights * 2 + batch * 1024 * 131072) / 3e12.
    assert least * 1000 == pytest.approx(milliseconds, abs=0.01)


def test_a_long_prompt_is_bound_by_arithmetic() -> None:
    # 2 * 6.979e9 * 2048 for the layers, 1.10e12 for attention, over 8e14.
    assert prefill_seconds(LLAMA_8B, H100, prompt_tokens=2048) == pytest.approx(0.0371, abs=1e-4)


def test_a_whole_workload_is_the_sum_of_its_steps() -> None:
    works = [Work(100, 0, 3)]

    least = ideal_seconds(works, LLAMA_8B, H100, at_once=1)

    steps = [decode_seconds(LLAMA_8B, H100, batch=1, context=context) for context in (101, 102)]
    assert least == pytest.approx(prefill_seconds(LLAMA_8B, H100, prompt_tokens=100) + sum(steps))


def test_the_nano_workload_has_the_bound_that_was_computed_by_hand() -> None:
    questions = [talk.questions[0] for talk in Nano().conversations(0)]
    works = [Work(len(question.token_ids), 0, question.max_tokens) for question in questions]

    least = ideal_seconds(works, QWEN3_06B, H100, at_once=256)

    assert least == pytest.approx(5.19, abs=0.05)


def test_fewer_callers_take_longer_and_cached_prompts_take_less() -> None:
    works = [Work(1000, 0, 50)] * 8
    cached = [Work(1000, 900, 50)] * 8

    def least(of: list[Work], at_once: int) -> float:
        return ideal_seconds(of, LLAMA_8B, H100, at_once=at_once)

    assert least(works, 1) > least(works, 4) > least(works, 8)
    assert least(cached, 8) < least(works, 8)


def test_a_window_bounds_what_a_layer_reads() -> None:
    windowed = ModelShape(
        layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=100,
        window=10, windowed_layers=1,
    )  # fmt: skip
    full = ModelShape(
        layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128, vocab=100
    )
    slow = Machine(bytes_per_second=1.0, flops_per_second=1e30, source="test")

    saved = decode_seconds(full, slow, batch=1, context=25) - decode_seconds(
        windowed, slow, batch=1, context=25
    )

    assert saved == (25 - 10) * full.kv_bytes_per_layer
    busy = Machine(bytes_per_second=1e30, flops_per_second=1.0, source="test")
    # Of 25 tokens the first ten see 1 to 10 others, the other 15 see 10: 205 rather than 325.
    saved = prefill_seconds(full, busy, prompt_tokens=25) - prefill_seconds(
        windowed, busy, prompt_tokens=25
    )
    assert saved == 4 * 4 * 16 * (325 - 205)


CONFIG = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 100,
    "intermediate_size": 128,
}  # fmt: skip


def shape_in(folder: Path, **changes: object) -> ModelShape:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return shape_of(folder)


def test_a_config_gives_the_shape(tmp_path: Path) -> None:
    shape = shape_in(tmp_path, num_key_value_heads=2, head_dim=32, torch_dtype="float32")

    assert (shape.kv_heads, shape.head_dim, shape.bytes_per_weight) == (2, 32, 4)
    assert shape_of(tmp_path / "config.json") == shape
    plain = shape_in(tmp_path)
    assert (plain.kv_heads, plain.head_dim, plain.bytes_per_weight) == (4, 16, 2)
    assert shape_in(tmp_path, text_config=CONFIG | {"vocab_size": 7}).vocab == 7


def test_a_config_says_which_layers_have_a_window(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2

    assert shape_in(tmp_path, sliding_window=8, layer_types=kinds).windowed_layers == 2
    assert shape_in(tmp_path, sliding_window=8).windowed_layers == 4
    assert shape_in(tmp_path, sliding_window=8, use_sliding_window=False).windowed_layers == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"num_experts": 8}, "mixture of experts"),
        ({"text_config": {"hidden_size": 3}}, "has no 'num_attention_heads'"),
    ],
)
def test_a_shape_that_would_give_a_wrong_bound_is_refused(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(RooflineUnknown, match=told):
        shape_in(tmp_path, **changes)


def test_a_config_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RooflineUnknown, match="cannot be read"):
        shape_of(tmp_path)


def test_every_gpu_of_the_table_says_where_its_figures_are_published() -> None:
    assert len(GPUS) >= 8
    assert all(machine.source.startswith("https://") for machine in GPUS.values())
