from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.policy import (
    BreakerPolicy,
    CanaryPolicy,
    FallbackPolicy,
    HedgePolicy,
    MirrorPolicy,
    ModelPolicy,
    PolicyInvalid,
    RetryPolicy,
    SamplingDefaults,
    TargetPolicy,
    TeamPolicy,
)
from tests.gateway.policy.directories import GOOD, load, write

SCALARS = st.one_of(
    st.text(max_size=12),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.booleans(),
    st.sampled_from(["gpu0", "gguf", "search", "standard", "overloaded", "*", "!", "!*", "key"]),
)
KEYS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        sorted(
            {"plugins", "api_key", "env", "file", "layers", "kind", "*", "!x", "gpu0", "search"}
            | {"anonymous", "chat-small", "standard"}
            | set(ModelPolicy.__struct_fields__)
            | set(FallbackPolicy.__struct_fields__)
            | set(TargetPolicy.__struct_fields__)
            | set(CanaryPolicy.__struct_fields__)
            | set(RetryPolicy.__struct_fields__)
            | set(BreakerPolicy.__struct_fields__)
            | set(HedgePolicy.__struct_fields__)
            | set(MirrorPolicy.__struct_fields__)
            | set(TeamPolicy.__struct_fields__)
            | set(SamplingDefaults.__struct_fields__)
        )
    ),
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda deeper: st.one_of(
            st.lists(deeper, max_size=4), st.dictionaries(KEYS, deeper, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=5,
)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        escaped = "".join(
            f"\\U{ord(letter):08X}" if letter in '"\\' or not letter.isprintable() else letter
            for letter in value
        )
        return f'"{escaped}"'
    return str(value).lower() if isinstance(value, bool | float) else str(value)


def _loads_or_says_why(directory: Path) -> None:
    try:
        load(directory)
    except PolicyInvalid as error:
        assert error.problems
        assert all("\n" not in problem and len(problem) < 2000 for problem in error.problems)
        assert str(error) == "\n".join(error.problems)


@settings(max_examples=150, deadline=None)
@given(trees=st.dictionaries(st.sampled_from(sorted(GOOD)), TREES, max_size=5))
@example(trees={"engines": {"": [], "\n": []}})
def test_any_tree_loads_or_is_refused_with_reasons(trees):
    contents = {
        noun: "".join(f"{_toml(key)} = {_toml(value)}\n" for key, value in tree.items())
        for noun, tree in trees.items()
    }

    with TemporaryDirectory() as parent:
        _loads_or_says_why(write(Path(parent), **contents))


@settings(max_examples=150, deadline=None)
@given(noun=st.sampled_from(sorted(GOOD)), content=st.binary(max_size=200))
def test_any_bytes_load_or_are_refused_with_reasons(noun, content):
    with TemporaryDirectory() as parent:
        directory = write(Path(parent))
        (directory / f"{noun}.toml").write_bytes(content)

        _loads_or_says_why(directory)


@settings(max_examples=200, deadline=None)
@given(
    noun=st.sampled_from(sorted(GOOD)),
    place=st.integers(0, 400),
    length=st.integers(0, 6),
    new=st.text(alphabet='[]{}="#.\n 0a*!\u0000é', max_size=4),
)
def test_any_slip_of_the_finger_loads_or_is_refused_with_reasons(noun, place, length, new):
    good = GOOD[noun]
    place = min(place, len(good))
    slipped = good[:place] + new + good[place + length :]

    with TemporaryDirectory() as parent:
        _loads_or_says_why(write(Path(parent), **{noun: slipped}))
