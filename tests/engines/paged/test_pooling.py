"""sentence-transformers' files, as that library writes them now and wrote them before."""

import json
from pathlib import Path
from typing import Any

import pytest

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.paged.pooling import Pooling, read_pooling

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


def read(folder: Path, pooling: Any, *, modules: Any = None, **files: Any) -> Pooling | None:
    modules = [TRANSFORMER, POOLING, NORMALIZE] if modules is None else modules
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return read_pooling(folder)


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"word_embedding_dimension": 8}, "mean"),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 8}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_each_kind_is_read_in_both_spellings(tmp_path: Path, pooling: Any, kind: str):
    assert read(tmp_path, pooling) == Pooling(kind=kind)  # pyright: ignore[reportArgumentType]


def test_a_folder_without_the_files_says_nothing(tmp_path: Path):
    assert read_pooling(tmp_path) is None


def test_what_goes_before_a_text_and_how_long_it_may_be(tmp_path: Path):
    found = read(
        tmp_path,
        {"pooling_mode_cls_token": True},
        sentence_bert_config={"max_seq_length": 256, "do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"query": "query: ", "document": ""},
            "default_prompt_name": "query",
        },
    )

    assert found == Pooling(kind="cls", max_tokens=256, prompt="query: ", is_lower_case=True)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode": "attention"},
        {"pooling_mode": {"kind": "mean"}},
    ],
)
def test_another_kind_is_refused_with_those_there_are(tmp_path: Path, pooling: Any):
    with pytest.raises(CheckpointUnsupported, match=r"Pooling: .* not supported.* cls, lasttoken"):
        read(tmp_path, pooling)


def test_a_step_that_is_not_taken_is_refused_by_name(tmp_path: Path):
    dense = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}

    with pytest.raises(CheckpointUnsupported, match=r"sentence_transformers\.models\.Dense"):
        read(tmp_path, {"pooling_mode_mean_tokens": True}, modules=[TRANSFORMER, POOLING, dense])


def test_a_prompt_that_is_left_out_of_the_mean_is_refused(tmp_path: Path):
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    pooling = {"pooling_mode_mean_tokens": True, "include_prompt": False}

    with pytest.raises(CheckpointUnsupported, match="include_prompt"):
        read(tmp_path, pooling, config_sentence_transformers=prompts)


@pytest.mark.parametrize(
    ("modules", "error"),
    [
        ({}, CheckpointUnavailable),
        ([1], CheckpointUnavailable),
        ([{"path": ""}], CheckpointUnavailable),
        ([TRANSFORMER], CheckpointUnsupported),
        ([TRANSFORMER, {**POOLING, "path": "../elsewhere"}], CheckpointUnavailable),
        ([TRANSFORMER, {**POOLING, "path": "3_Pooling"}], CheckpointUnavailable),
    ],
)
def test_steps_that_lead_nowhere_are_refused(tmp_path: Path, modules: Any, error: Any):
    with pytest.raises(error):
        read(tmp_path, {"pooling_mode_mean_tokens": True}, modules=modules)
