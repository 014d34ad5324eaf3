"""The docs and the tree say the same: paths exist, links lead somewhere, code parses."""

import ast
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("policies/*.md")])
WALKS = [ROOT / "docs" / "architecture.md", ROOT / "docs" / "life-of-a-call.md"]
FILE = re.compile(r"(?<![\w/.*<{-])[\w.][\w./-]*\.(?:py|toml|md|sse|txt|gguf|json)(?![\w*])")
FOLDER = re.compile(r"(?<![\w/.-])(?:gateway|plugins|engines|policies|tests|docs)/(?:[\w.-]+/)*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.M | re.S)
# A path of somebody's own machine helps nobody else.
PRIVATE_PATH = re.compile(r"(?<![\w.}/-])/(?:home|root|work|Users)/\w")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def exists(named: str, page: Path) -> bool:
    if "/" in named:
        return (ROOT / named).exists() or (page.parent / named).exists()
    is_module = (ROOT / named.replace(".", "/")).is_dir()  # `engines.gguf` is no model file
    return is_module or any(True for _ in files_named(named))


def files_named(name: str) -> Iterator[Path]:
    for folder in ("gateway", "plugins", "engines", "policies", "tests", "docs"):
        yield from (ROOT / folder).rglob(name)
    yield from ROOT.glob(name)


@pytest.mark.parametrize("page", WALKS, ids=relative)
def test_every_path_that_the_walks_name_exists(page: Path) -> None:
    text = page.read_text()
    named = {*FILE.findall(text), *FOLDER.findall(text)}

    assert named
    assert sorted(name for name in named if not exists(name, page)) == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in LINK.findall(page.read_text()):
        target, _, fragment = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target) if target else page
        if not path.exists() or (fragment and fragment not in anchors(path)):
            broken.append(link)

    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get when it is rendered."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    slugs = {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found
    }
    return slugs | set(re.findall(r'<a (?:id|name)="([^"]+)"', page.read_text()))


def blocks(*languages: str) -> list[tuple[str, str]]:
    return [
        (f"{relative(page)}:{page.read_text()[: found.start()].count(chr(10)) + 2}", found[3])
        for page in PAGES
        for found in BLOCK.finditer(page.read_text())
        if found[2] in languages
    ]


def ids(value: object) -> str:
    return str(value).partition("\n")[0][:60]


@pytest.mark.parametrize(("place", "code"), blocks("toml"), ids=ids)
def test_toml_in_the_docs_parses(place: str, code: str) -> None:
    tomllib.loads(code)


@pytest.mark.parametrize(("place", "code"), blocks("python", "py"), ids=ids)
def test_python_in_the_docs_parses(place: str, code: str) -> None:
    compile(code, place, "exec", flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("place", "code"), blocks("json"), ids=ids)
def test_json_in_the_docs_parses(place: str, code: str) -> None:
    json.loads(code)


@pytest.mark.parametrize(("place", "code"), blocks("sh", "bash", "console", "shell"), ids=ids)
def test_shell_lines_in_the_docs_parse_and_name_commands_that_exist(place: str, code: str) -> None:
    script = shell_lines(code)
    bash = shutil.which("bash") or "/bin/bash"

    checked = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True, timeout=20)

    assert checked.returncode == 0, checked.stderr
    used = set(re.findall(r"(?:^|[\s/])penstock ([a-z]+)", script, re.M))
    assert used <= set(COMMANDS)


def shell_lines(code: str) -> str:
    """What a reader would type: of a console, the lines after `$` and what continues them."""
    if not re.search(r"^\s*\$ ", code, re.M):
        return code
    typed: list[str] = []
    continues = False
    for line in code.splitlines():
        prompt = re.match(r"\s*\$ ", line)
        if prompt or continues:
            typed.append(line[prompt.end() :] if prompt else line)
            continues = line.endswith("\\")
    return "\n".join(typed)


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))

    named = re.compile(r"(?:`|\$ )make ([a-z-]+)")
    used = {name for page in PAGES for name in named.findall(page.read_text())}

    assert {"serve", "test"} <= used
    assert used <= targets


def test_the_changelog_names_the_version_that_is_being_made() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert f"## {project['version']}" in (ROOT / "docs" / "changelog.md").read_text()


def test_a_decision_fits_a_page_and_says_what_was_given_up() -> None:
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)
        assert page.read_text().count("\n") <= 60, relative(page)


def texts() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        is_text = path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".conf", ".sh", ""}
        if path.is_file() and is_text and path.name != ".git" and not is_made(path):
            yield path


def is_made(path: Path) -> bool:
    """Put there by a tool: caches, environments, packages."""
    folders = path.relative_to(ROOT).parts[:-1]
    return any(
        name in ("node_modules", "__pycache__", "build", "dist")
        or (name.startswith(".") and name != ".ci")
        for name in folders
    )


def test_nothing_points_to_a_place_on_somebodys_own_machine() -> None:
    wrong = [
        f"{relative(path)}: {found[0]}"
        for path in texts()
        if path != Path(__file__)
        for found in PRIVATE_PATH.finditer(path.read_text(errors="replace"))
    ]

    assert wrong == []


def test_the_patterns_find_what_they_look_for() -> None:
    text = "`gateway/api/<dialect>/` `plugins/*.py` gateway/pipeline.py (app.py) engines/gguf/ ok"

    assert FILE.findall(text) == ["gateway/pipeline.py", "app.py"]
    assert "engines/gguf/" in FOLDER.findall(text)
    assert not exists("gateway/nowhere.py", WALKS[0])
    assert PRIVATE_PATH.search("see /home/me/notes")
    assert shell_lines("$ a \\\n  b\nanswer\n$ c") == "a \\\n  b\nc"
