from pathlib import Path

import pytest

from gateway.policy import Secret, SecretMissing
from tests.gateway.policy.directories import GOOD, load, problems_of, write

HOW = '{ env = "NAME" } or { file = "path" }'


def _with_key(tmp_path: Path, written: str) -> Path:
    engines = GOOD["engines"].replace("[gpu1]", f"api_key = {written}\n[gpu1]")
    return write(tmp_path / "policy", engines=engines)


def test_a_secret_is_read_from_the_environment_when_it_is_needed(tmp_path):
    secret = load(_with_key(tmp_path, '{ env = "UPSTREAM_KEY" }')).engines["gpu0"].config.api_key

    assert secret.reveal({"UPSTREAM_KEY": "sk-1"}) == "sk-1"
    assert secret.reveal({"UPSTREAM_KEY": "sk-2"}) == "sk-2"


def test_a_secret_file_counts_from_the_policy_directory_and_loses_its_last_newline(tmp_path):
    directory = _with_key(tmp_path, '{ file = "upstream.key" }')
    (directory / "upstream.key").write_text("sk-from-file\n")

    secret = load(directory).engines["gpu0"].config.api_key

    assert secret.reveal() == "sk-from-file"
    assert secret.file == str(directory / "upstream.key")


def test_a_secret_written_in_the_policy_is_refused_and_not_repeated(tmp_path):
    problems = problems_of(_with_key(tmp_path, '"sk-very-secret"'))

    assert problems == [
        "engines.toml: [gpu0] api_key: a secret is never written in a policy; "
        f"write where it is kept: {HOW}"
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{}", f"a secret names exactly one place: {HOW}"),
        ('{ env = "A", file = "b" }', f"a secret names exactly one place: {HOW}"),
        ('{ env = "" }', "a secret's place has no name"),
        ('{ evn = "A" }', 'unknown key "evn" (did you mean "env"?)'),
    ],
)
def test_a_reference_names_exactly_one_place(tmp_path, written, said):
    assert problems_of(_with_key(tmp_path, written)) == [f"engines.toml: [gpu0] api_key: {said}"]


def test_a_secret_that_is_not_there_is_named_by_its_reference(tmp_path):
    with pytest.raises(SecretMissing, match="environment variable NOT_SET is not set"):
        Secret(env="NOT_SET").reveal({})
    with pytest.raises(SecretMissing, match=r"/nowhere cannot be read: No such file"):
        Secret(file="/nowhere").reveal()
    with pytest.raises(SecretMissing, match="cannot be read: Is a directory"):
        Secret(file=str(tmp_path)).reveal()
    with pytest.raises(SecretMissing, match="NUL character"):
        Secret(file="a\0b").reveal()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\n", "is empty"), (b"\xff\xfe", "is not UTF-8 text"), (b"x" * 70_000, "is over 64 KiB")],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path, content, said):
    path = tmp_path / "key"
    path.write_bytes(content)

    with pytest.raises(SecretMissing, match=said):
        Secret(file=str(path)).reveal()


def test_printing_a_secret_or_its_policy_shows_the_reference_only(tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-very-secret")
    policy = load(_with_key(tmp_path, '{ env = "UPSTREAM_KEY" }'))

    policy.engines["gpu0"].config.api_key.reveal()

    assert "sk-very-secret" not in repr(policy)
    assert "UPSTREAM_KEY" in repr(policy)
