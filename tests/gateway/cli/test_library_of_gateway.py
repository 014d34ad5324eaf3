"""The commands that manage models, against a real gateway whose engine keeps them in memory."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engines.modelfile_text import Instruction
from gateway.cli import main
from gateway.keys.text import new_claim, written
from tests.fake_library import DIGEST, MODELS, FakeLibrary
from tests.fakes import ScriptedEngine
from tests.serving import SCRIPTED_POLICY, Server, scripted_gateway, serving, write_policy

Typed = Callable[..., Result]


@pytest.fixture(scope="module")
def library() -> FakeLibrary:
    return FakeLibrary(name="shelf")


def gateway_of(directory: Path, library: FakeLibrary, role: str) -> Iterator[Server]:
    gateway_toml = SCRIPTED_POLICY["gateway.toml"]
    gateway_toml = gateway_toml.replace('["anonymous", "api_keys",', '["api_keys", "anonymous",')
    gateway_toml = gateway_toml.replace('role = "admin"', f'role = "{role}"')
    policy = write_policy(directory / "policy", {**MODELS, "gateway.toml": gateway_toml})
    engines = {"shelf": library, "bare": ScriptedEngine(name="bare")}
    with serving(scripted_gateway(policy, engines)) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, library: FakeLibrary) -> Iterator[Server]:
    yield from gateway_of(tmp_path_factory.mktemp("admin"), library, "admin")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, library: FakeLibrary) -> Iterator[Server]:
    yield from gateway_of(tmp_path_factory.mktemp("member"), library, "member")


@pytest.fixture
def typed(server: Server) -> Typed:
    def type_(*words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--url", server.url])

    return type_


def test_a_model_is_pulled_listed_copied_pushed_and_removed(
    typed: Typed, library: FakeLibrary
) -> None:
    pulled = typed("pull", "new")
    listed = json.loads(typed("list", "new", "--json").stdout)
    copied = typed("cp", "new", "127.0.0.1:5000/team/new")
    pushed = typed("push", "127.0.0.1:5000/team/new")
    removed = typed("rm", "new", "127.0.0.1:5000/team/new")

    assert pulled.stderr.splitlines()[-1] == "success"
    assert "pulling abababababab: done" in pulled.stderr
    assert [one["digest"] for one in listed] == [DIGEST.removeprefix("sha256:")]
    assert (copied.exit_code, removed.exit_code) == (0, 0)
    assert "pushing manifest" in pushed.stderr
    assert not {"new", "127.0.0.1:5000/team/new"} & set(library.names)


def test_a_model_is_made_of_a_file_of_this_machine(
    typed: Typed, library: FakeLibrary, tmp_path: Path
) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"GGUF weights")
    (tmp_path / "Modelfile").write_text(
        'FROM ./weights.gguf\nPARAMETER temperature 0.5\nPARAMETER stop "a b"\nSYSTEM be kind'
    )

    made = typed("create", "mine", "-f", str(tmp_path / "Modelfile"), "-q", "q4_K_M")

    assert made.exit_code == 0, made.output
    [digest] = [digest for digest, content in library.blobs.items() if content == b"GGUF weights"]
    assert library.modelfiles["mine"] == [
        Instruction(0, "FROM", "", f"@{digest}"),
        Instruction(0, "SYSTEM", "", "be kind"),
        Instruction(0, "PARAMETER", "temperature", "0.5"),
        Instruction(0, "PARAMETER", "stop", "a b"),
    ]
    assert ("create", "mine", "q4_K_M") in library.jobs


@pytest.mark.parametrize("spelled", ["./My model.Q8_0.gguf", "My model.Q8_0.gguf", "absolute"])
def test_a_file_of_this_machine_can_be_pulled(
    typed: Typed,
    library: FakeLibrary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spelled: str,
) -> None:
    path = tmp_path / "My model.Q8_0.gguf"
    path.write_bytes(b"GGUF of mine")
    monkeypatch.chdir(tmp_path)

    pulled = typed("pull", str(path) if spelled == "absolute" else spelled)

    assert pulled.exit_code == 0, pulled.output
    assert "making 'My-model.Q8_0' of " in pulled.stderr
    [digest] = [digest for digest, content in library.blobs.items() if content == b"GGUF of mine"]
    assert library.modelfiles["My-model.Q8_0"] == [Instruction(0, "FROM", "", f"@{digest}")]
    assert ("create", "My-model.Q8_0") in library.jobs


def test_a_file_that_is_not_there_is_not_pulled(typed: Typed, library: FakeLibrary) -> None:
    before = list(library.jobs)

    missing = typed("pull", "./nowhere.gguf")

    assert missing.exit_code == 1
    assert "there is no file" in missing.stderr
    assert library.jobs == before


def test_a_name_that_only_looks_like_a_file_is_a_name(typed: Typed, library: FakeLibrary) -> None:
    assert typed("pull", "team/model.gguf").exit_code == 0
    assert ("pull", "team/model.gguf") in library.jobs


def test_show_has_what_the_engine_knows(typed: Typed) -> None:
    shown = " ".join(typed("show", "chat-small").stdout.split())

    for row in ("architecture llama", "parameters 8.0B", "quantization q4_0", 'stop "END"', "MIT"):
        assert row.lower() in shown.lower()


def test_run_loads_keeps_and_stop_frees(typed: Typed, library: FakeLibrary) -> None:
    typed("run", "chat-small", "hi", "--keepalive", "1h")
    loaded = json.loads(typed("ps", "--json").stdout)
    stopped = typed("stop", "chat-small")

    assert [one["name"] for one in loaded] == ["chat-small"]
    assert stopped.exit_code == 0
    assert library.loaded == set()


@pytest.mark.parametrize(
    "words",
    [["pull", "x"], ["rm", "chat-small"], ["cp", "chat-small", "x"], ["stop", "chat-small"]],
    ids=" ".join,
)
def test_a_caller_without_the_role_is_told_that_it_wants_it(
    strict: Server, library: FakeLibrary, words: list[str]
) -> None:
    before = list(library.jobs)

    result = CliRunner().invoke(main, [*words, "--url", strict.url])

    assert result.exit_code == 1
    assert "admin" in result.stderr
    assert "(HTTP 403)" in result.stderr
    assert library.jobs == before


def test_a_model_that_a_member_may_not_pull_is_only_not_there(strict: Server) -> None:
    result = CliRunner().invoke(main, ["run", "missing", "hi", "--url", strict.url])

    assert result.exit_code == 1
    assert "model 'missing' not found (HTTP 404)" in result.stderr


@pytest.mark.parametrize("words", [["run", "chat-small", "hi"], ["pull", "x"], ["list"]])
def test_a_key_that_is_not_known_is_refused_with_the_way_out(
    server: Server, words: list[str]
) -> None:
    result = CliRunner().invoke(main, [*words, "--url", server.url, "--key", written(new_claim())])

    assert result.exit_code == 1
    assert "pass a key with --key or PENSTOCK_API_KEY (HTTP 401)" in result.stderr


def test_a_key_of_openais_in_the_environment_goes_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-of-somebody-else")

    assert CliRunner().invoke(main, ["list", "--url", server.url]).exit_code == 0


def test_what_our_keys_begin_with_is_known_to_the_command_line() -> None:
    from gateway.cli.client import KEY_PREFIX
    from gateway.keys.text import PREFIX

    assert KEY_PREFIX == PREFIX


def test_the_headers_that_tell_of_no_effect_are_known_to_the_command_line() -> None:
    from gateway.api.ollama.abilities import NUM_CTX_HEADER
    from gateway.api.ollama.opening import IGNORED_HEADER
    from gateway.cli import answering

    assert answering.IGNORED_HEADER == IGNORED_HEADER
    assert answering.NUM_CTX_HEADER == NUM_CTX_HEADER
