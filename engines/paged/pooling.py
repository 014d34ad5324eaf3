"""How a model's hidden states become one vector, from sentence-transformers' files.

`modules.json` lists the steps; each step's folder has its config.json. What the steps
say and this engine does not do (a dense layer behind the pooling, say) is refused by
name: leaving it out would give vectors that look right and are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields, read_json, shown

PoolingKind = Literal["mean", "cls", "last", "max"]

MODULES = "modules.json"
# In the new files the kind is named, in the old ones each has a switch.
KINDS: Mapping[str, PoolingKind] = {
    "cls": "cls",
    "lasttoken": "last",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean",  # the same direction, and vectors have length one
}
SWITCHES: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """One vector for one input. Vectors are always given with length one."""

    kind: PoolingKind
    max_tokens: int | None = None  # the longest input that the model's makers meant; None: all
    prompt: str = ""  # what the model's own library puts before every text
    is_lower_case: bool = False  # that library lowers the text before the tokenizer sees it


def read_pooling(folder: Path) -> Pooling | None:
    """Read a folder's pooling; None where it has no sentence-transformers files."""
    path = folder / MODULES
    if not path.exists():
        return None
    kind: PoolingKind | None = None
    pools_prompt = True
    for position, module in enumerate(_modules(path)):
        step = module.text("type").rpartition(".")[2]
        if step == "Pooling":
            config = JsonFields.read(folder / _folder(module) / "config.json")
            kind = _kind(config)
            pools_prompt = config.flag("include_prompt", default=True)
        elif step not in ("Transformer", "Normalize") or (step == "Transformer" and position):
            raise CheckpointUnsupported(
                f"{MODULES}: step {module.text('type')!r} is not supported; there are: "
                "Transformer, Pooling, Normalize"
            )
    if kind is None:
        raise CheckpointUnsupported(f"{MODULES}: has no Pooling step, so no vector of one text")
    transformer = _optional(folder / "sentence_bert_config.json")
    prompt = _prompt(_optional(folder / "config_sentence_transformers.json"))
    if prompt and not pools_prompt:
        raise CheckpointUnsupported("Pooling: include_prompt = false is not supported")
    return Pooling(
        kind=kind,
        max_tokens=transformer.optional_integer("max_seq_length", None),
        prompt=prompt,
        is_lower_case=transformer.flag("do_lower_case", default=False),
    )


def _modules(path: Path) -> list[JsonFields]:
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(module, dict) for module in content):
        raise CheckpointUnavailable(f"{MODULES} is {shown(content)}; expected a list of steps")
    return [JsonFields(MODULES, module) for module in content]


def _folder(module: JsonFields) -> str:
    name = module.text("path", "")
    if name in ("", ".", "..") or Path(name).name != name:
        module.fail("path", "the name of a folder beside modules.json")
    return name


def _kind(config: JsonFields) -> PoolingKind:
    named: object = config.values.get("pooling_mode")
    if named is None:
        named = [kind for switch, kind in SWITCHES.items() if config.values.get(switch)] or "mean"
    kinds = named if isinstance(named, list) else [named]
    if len(kinds) == 1 and str(kinds[0]) in KINDS:
        return KINDS[str(kinds[0])]
    raise CheckpointUnsupported(
        f"Pooling: {shown(named)} is not supported; there are, one at a time: {', '.join(KINDS)}"
    )


def _optional(path: Path) -> JsonFields:
    return JsonFields.read(path) if path.exists() else JsonFields(path.name, {})


def _prompt(config: JsonFields) -> str:
    if not config.has("default_prompt_name"):
        return ""
    return config.fields("prompts").text(config.text("default_prompt_name"), "")
