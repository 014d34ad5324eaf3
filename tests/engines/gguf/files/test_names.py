"""Names as Ollama spells them, and everything that is no name."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import RequestRefused
from engines.gguf.files.names import ModelName, name_of_path, parse_name


@pytest.mark.parametrize(
    ("text", "path", "display"),
    [
        ("llama3.2", "registry.ollama.ai/library/llama3.2/latest", "llama3.2:latest"),
        ("qwen3:0.6b", "registry.ollama.ai/library/qwen3/0.6b", "qwen3:0.6b"),
        ("me/mine", "registry.ollama.ai/me/mine/latest", "me/mine:latest"),
        ("hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF/Q4_K_M", "hf.co/Org/Repo-GGUF:Q4_K_M"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b/c", "localhost:5000/a/b:c"),
        ("Registry.Ollama.AI/library/x", "Registry.Ollama.AI/library/x/latest", "x:latest"),
        ("_a/_b:_c.d-e", "registry.ollama.ai/_a/_b/_c.d-e", "_a/_b:_c.d-e"),
    ],
)
def test_a_name_has_defaults_and_a_path(text: str, path: str, display: str) -> None:
    name = parse_name(text)

    assert name.path == PurePosixPath(path)
    assert name.display == display
    assert parse_name(name.display).folded == name.folded
    assert name_of_path(name.path.parts) == name


def test_names_that_differ_in_case_alone_fold_to_one() -> None:
    assert parse_name("Qwen3:0.6B").folded == parse_name("qwen3:0.6b").folded


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its MODEL is empty"),
        ("a:", "its TAG is empty"),
        ("/a", "its NAMESPACE is empty"),
        ("a/b/c/d", "it has 4 parts"),
        ("..", "MODEL '..' may only have"),
        ("../../etc/passwd", "it has 4 parts"),
        ("../etc/passwd", "HOST '..' may only have"),
        ("a/..", "MODEL '..'"),
        ("a:..", "TAG '..'"),
        ("a:b:c", "TAG 'b:c'"),
        ("a.b/c", 'NAMESPACE \'a.b\' may only have letters, digits, "_" and "-",'),
        ("a b", "MODEL 'a b'"),
        ("a\0b", "MODEL"),
        ("a\n", "MODEL"),
        ("-a", "MODEL '-a'"),
        (".hidden", "MODEL '.hidden'"),
        ("x" * 81, "has 81 characters of 80"),
        ("h" * 351 + "/a/b", "has 351 characters of 350"),
        ("é", "MODEL 'é'"),
        ("a\\b", "MODEL"),
        ("C:\\x", "TAG"),
    ],
)
def test_what_is_no_name_is_refused_with_the_part_that_is_wrong(text: str, said: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        parse_name(text)

    assert said in refused.value.message
    assert len(refused.value.message) < 500
    assert refused.value.param == "model"


@given(st.text(alphabet=st.sampled_from("ab.:/\\-_ \0%~…é"), max_size=20))
def test_whatever_is_taken_for_a_name_stays_below_its_folder(text: str) -> None:
    try:
        name = parse_name(text)
    except RequestRefused:
        return

    assert len(name.path.parts) == 4
    assert not name.path.is_absolute()
    assert all(part.strip(".") and "\0" not in part for part in name.path.parts)


def test_a_path_of_other_parts_is_no_name() -> None:
    assert name_of_path(("a", "b", "c")) is None
    assert name_of_path(("a", "b", "..", "c")) is None
    assert name_of_path(("h", "n", "m", "t")) == ModelName("h", "n", "m", "t")
