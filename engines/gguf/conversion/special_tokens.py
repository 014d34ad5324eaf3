"""Which tokens begin and end a text, and the chat template, from the files beside the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.checkpoint.json_fields import JsonFields
from engines.gguf.conversion.vocabulary import Vocabulary

MAX_TEMPLATE_BYTES = 2**20
_KINDS = {"bos": "bos_token", "eos": "eos_token", "unk": "unk_token", "pad": "pad_token"}


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids by GGUF's names for them; what is put before and after every text."""

    ids: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None


def read_special_tokens(folder: Path, vocabulary: Vocabulary) -> SpecialTokens:
    """Read what config files say; nothing of it has to be there."""
    config = _optional(folder / "tokenizer_config.json")
    ids = _named_ids(config, vocabulary)
    num_tokens = len(vocabulary.texts)
    for file in ("generation_config.json", "config.json"):
        fields = _optional(folder / file)
        for kind in ("bos", "eos", "pad"):
            said = fields.get(f"{kind}_token_id")
            numbers = [n for n in (said if isinstance(said, list) else [said]) if type(n) is int]
            numbers = [number for number in numbers if 0 <= number < num_tokens]
            if numbers:
                ids.setdefault(kind, numbers[0])
            others = [number for number in numbers if number != ids.get(kind)]
            if kind == "eos" and others:  # Llama 3's end of a turn, beside its end of a text
                ids.setdefault("eot", others[0])
    first, last = _around(_optional(folder / "tokenizer.json").get("post_processor"))
    return SpecialTokens(
        ids=ids,
        adds_bos=_flag(config, "add_bos_token", first),
        adds_eos=_flag(config, "add_eos_token", last),
        chat_template=_template(folder, config),
    )


def _named_ids(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, int]:
    ids: dict[str, int] = {}
    for kind, key in _KINDS.items():
        said = config.get(key)
        text = said.get("content") if isinstance(said, dict) else said
        number = vocabulary.id_of(text) if isinstance(text, str) else None
        if number is not None:
            ids[kind] = number
    return ids


def _optional(path: Path) -> Mapping[str, Any]:
    return JsonFields.read(path).values if path.exists() else {}


def _flag(config: Mapping[str, Any], key: str, otherwise: bool) -> bool:  # noqa: FBT001
    value = config.get(key)
    return value if isinstance(value, bool) else otherwise


def _around(processor: object) -> tuple[bool, bool]:
    """Whether tokenizer.json puts a special token before, and after, a text."""
    waiting = [processor]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        waiting += part.get("processors") or []
        single = part.get("single")
        if part.get("type") == "TemplateProcessing" and isinstance(single, list) and single:
            return "SpecialToken" in single[0], "SpecialToken" in single[-1]
    return False, False


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists() and path.stat().st_size <= MAX_TEMPLATE_BYTES:
        return path.read_text(errors="replace")
    said = config.get("chat_template")
    if isinstance(said, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
        said = named.get("default")
    return said if isinstance(said, str) and len(said) <= MAX_TEMPLATE_BYTES else None
