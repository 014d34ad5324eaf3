"""One word for one idea, in file, class, policy, log and docs; see docs/architecture.md.

Everything is read off the tree, so a new file is held to the rules from the
moment it is there.
"""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.errors import EngineError
from gateway.api import HANDLERS
from gateway.cli import COMMANDS
from gateway.errors import STATUS, Refusal
from gateway.policy.files import FILES

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "plugins", "engines")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLUGINS: dict[str, str] = PROJECT["entry-points"]["penstock.plugins"]
MAX_LINES = 400
BANNED_FILE_NAMES = {
    "utils", "util", "helpers", "helper", "common", "misc", "base", "core", "types", "manager",
    "handler",
}  # fmt: skip
# The glossary's word for each idea, by the words that other projects have for it.
OTHER_WORDS = {
    "tenant": "team",
    "organization": "team",
    "backend": "engine",
    "provider": "engine",
    "deployment": "target",
    "variant": "target",
    "actor": "principal",
}
NOT_A_CODE = {"internal", "client_closed"}  # statuses of calls that no error class describes


def sources(*folders: str) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
    )


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def headings(page: str) -> set[str]:
    """The headings of a page of docs, without code marks; empty if the page is not there."""
    path = ROOT / "docs" / page
    text = path.read_text() if path.exists() else ""
    return {found.replace("`", "").strip() for found in re.findall(r"^#+ (.*)$", text, re.M)}


def subclasses(error: type[Exception]) -> Iterator[type[Exception]]:
    for child in error.__subclasses__():
        if child.__module__.split(".")[0] in PACKAGES:
            yield child
            yield from subclasses(child)


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: sorted(handler.paths)[0])
def test_an_endpoint_has_the_name_of_its_file(handler: object) -> None:
    name = getattr(handler, "name", None) or getattr(handler, "opt", {}).get("endpoint")
    module = getattr(handler, "fn").__module__  # noqa: B009
    parts = module.removeprefix("gateway.api.").split(".")

    assert name is not None, f"a handler in {module} has no endpoint name"
    # A file of the dialects serves one endpoint; one beside them (health) serves a few.
    expected = ".".join(parts[:2])
    assert name == expected or (len(parts) == 1 and name.startswith(f"{parts[0]}."))


def test_every_endpoint_has_a_heading_in_the_api_docs() -> None:
    dialects = {"openai", "anthropic", "ollama"}
    names = {handler.name for handler in HANDLERS if handler.name}

    described = headings("api.md") | headings("ollama-api.md")
    missing = {name for name in names if name.split(".")[0] in dialects} - described

    assert not missing


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_is_one_word_in_entry_point_file_class_and_docs(name: str) -> None:
    module_name, _, class_name = PLUGINS[name].partition(":")

    assert module_name == f"plugins.{name}"
    # `GgufEngine` is the engine itself, so the plugin that registers it says so.
    assert class_name == camel(name) + ("Plugin" if name.endswith("_engine") else "")
    assert hasattr(importlib.import_module(module_name), class_name)
    assert name in headings("plugins.md")


def test_every_plugin_file_has_an_entry_point_and_the_docs_name_no_other() -> None:
    files = {path.stem for path in sources("plugins")} - {"__init__"}
    described = {heading for heading in headings("plugins.md") if re.fullmatch("[a-z_]+", heading)}

    assert files == set(PLUGINS)
    assert described == set(PLUGINS)


def test_an_engine_kind_is_its_folder_its_class_and_its_plugin() -> None:
    kinds = {path.parent.name for path in (ROOT / "engines").glob("*/engine.py")}

    for kind in kinds:
        source = (ROOT / "engines" / kind / "engine.py").read_text()
        assert f"class {camel(kind)}Engine" in source
        assert f"{kind}_engine" in PLUGINS


@pytest.mark.parametrize("root", [EngineError, Refusal])
def test_an_error_code_is_its_class_name_and_has_a_status(root: type[Exception]) -> None:
    for error in subclasses(root):
        code = getattr(error, "code", None)

        assert code in STATUS, f"{error.__name__} has code {code!r}, which has no HTTP status"
        # One error may share another's code, as its special case: LedgerUnavailable.
        name = snake(error.__name__)
        assert name == code or name.endswith(f"_{code}")


def test_every_status_is_of_an_error_that_exists() -> None:
    errors = {EngineError, *subclasses(EngineError), *subclasses(Refusal)}

    assert set(STATUS) - NOT_A_CODE == {getattr(error, "code", None) for error in errors}


@pytest.mark.parametrize(
    "directory", [path.name for path in sorted((ROOT / "policies").iterdir()) if path.is_dir()]
)
def test_a_policy_directory_has_the_files_of_a_policy_and_no_more(directory: str) -> None:
    files = {path.name for path in (ROOT / "policies" / directory).iterdir()}

    assert files == set(FILES)


def test_a_plugin_that_a_policy_lists_exists() -> None:
    for path in sorted((ROOT / "policies").glob("*/gateway.toml")):
        listed = tomllib.loads(path.read_text())["plugins"]

        assert set(listed) <= set(PLUGINS), relative(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_word_in_command_file_and_docs(command: str) -> None:
    module, _ = COMMANDS[command]

    # `list` alone would hide the builtin in its own file.
    assert module in (command, f"{command}_models")
    assert (ROOT / "gateway" / "cli" / f"{module}.py").exists()
    assert command in headings("cli.md")


def test_no_file_has_a_name_that_says_nothing() -> None:
    named = [relative(path) for path in sources(*PACKAGES, "tests")]

    assert [name for name in named if Path(name).stem in BANNED_FILE_NAMES] == []


def test_no_source_file_is_longer_than_a_reader_bears() -> None:
    lengths = {relative(path): path.read_text().count("\n") for path in sources(*PACKAGES, "tests")}

    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=relative)
def test_the_glossary_is_followed_in_names(path: Path) -> None:
    wrong = {
        f"{name} (say {OTHER_WORDS[word]})"
        for name in defined_names(ast.parse(path.read_text()))
        for word in snake(name).split("_")
        if word in OTHER_WORDS
    }

    assert wrong == set()


def defined_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    source = path.read_text()

    assert not source.strip() or ast.get_docstring(ast.parse(source))


def test_the_code_reads_words_in_camel_and_snake_alike() -> None:
    assert camel("rate_limits") == "RateLimits"
    assert snake("ContextTooLong") == "context_too_long"
    names = set(defined_names(ast.parse("class TenantMap:\n def put(self, backend_url): x = 1")))
    assert names == {"TenantMap", "put", "self", "backend_url", "x"}
