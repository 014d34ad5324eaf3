"""What an install brings along: PyPI's `.pth` stealer of March 2026 ran by being installed."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("gateway", "plugins", "engines", "policies")


def test_nothing_in_the_wheel_runs_by_being_installed() -> None:
    files = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*")]

    assert len(files) > 100
    assert [path.name for path in files if path.suffix == ".pth"] == []
    assert [path.name for path in files if path.name in ("sitecustomize.py", "setup.py")] == []
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) | set(wheel["force-include"]) == set(PACKAGES)
    assert "hooks" not in PYPROJECT["tool"]["hatch"]["build"]


def test_packages_with_holes_are_not_taken() -> None:
    dependencies = "\n".join(PYPROJECT["project"]["dependencies"])
    wanted = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", dependencies, re.M))

    assert at_least(wanted["authlib"], "1.6.9")
    assert at_least(wanted["jinja2"], "3.1.6")
    assert at_least(wanted["litestar"], "2.20.0")


def at_least(version: str, floor: str) -> bool:
    def parts(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("."))

    return (*parts(version), 0, 0)[:3] >= parts(floor)


def test_nothing_updates_itself() -> None:
    """CVE-2026-42248, CVE-2026-42249."""
    sources = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    installs = re.compile(r"""["']pip["']|["']uv["']|self_?update|ensurepip""")
    # Builds llama.cpp before anything is installed, when somebody runs it by hand.
    known = {ROOT / "engines" / "gguf" / "build.py"}

    assert [p for p in sources if p not in known and installs.search(p.read_text())] == []
