"""What no source file may do, because it has ended badly elsewhere.

Deserializers that run code, evaluation of text, shells, SQL put together from
strings, secrets compared with `==`, templates outside the sandbox. Each rule is
shown a violation, so that none of them can fall silent.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for folder in ("gateway", "plugins", "engines") for path in (ROOT / folder).rglob("*.py")
)
BANNED_MODULES = {
    "pickle": "loading it runs code",
    "marshal": "loading it runs code",
    "shelve": "it is pickle",
    "dill": "it is pickle",
    "cloudpickle": "it is pickle",
    "joblib": "it is pickle",
    "diskcache": "it is pickle",
    "telnetlib": "no encryption",
    "transformers": "a model may bring code that it runs, and its switch against that has failed",
    "xmlrpc": "expands entities",
}
BANNED_CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "__import__": "runs what a name says; use importlib with a name from a fixed table",
    "os.system": "a shell",
    "os.popen": "a shell",
    "subprocess.getoutput": "a shell",
    "subprocess.getstatusoutput": "a shell",
    "torch.load": "unpickles; read safetensors",
    "yaml.load": "builds objects; the policy is TOML",
    "yaml.unsafe_load": "builds objects",
    "ast.literal_eval": "deep input ends the process",
    "tempfile.mktemp": "a race",
    "jinja2.Environment": "no sandbox; see engines/chat",
    "jinja2.Template": "no sandbox; see engines/chat",
    "Template": "no sandbox; see engines/chat",
    "Environment": "no sandbox; see engines/chat",
    "SandboxedEnvironment": "lets templates change what they are given; use the immutable one",
}
# Reads back the checkpoint that the same run wrote; nothing that serves imports it.
KNOWN = {"engines/starter/train.py": "torch.load()"}
BANNED_NAMES = {"LlamaDiskCache", "LlamaGrammar", "llama_sampler_init_grammar"}
SQL_CALLS = {"execute", "executemany", "executescript", "exec_driver_sql", "text"}
SECRET = re.compile(r"(?:^|_)(?:secret|pepper|password|signature|hmac|mac|bearer|key_hash)s?$")


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain; empty where it starts with something else than a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def violations(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        found = [
            *imported(node),
            *(called(node) if isinstance(node, ast.Call) else ()),
            *(compared(node) if isinstance(node, ast.Compare) else ()),
        ]
        if isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node).rpartition(".")[2]
            found += [f"{name} is never used here"] if name in BANNED_NAMES else []
        yield from (f"line {getattr(node, 'lineno', '?')}: {message}" for message in found)


def imported(node: ast.AST) -> Iterator[str]:
    modules: list[str] = []
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
    for module in modules:
        top = module.split(".")[0]
        if top in BANNED_MODULES:
            yield f"import of {top}: {BANNED_MODULES[top]}"
        # A template's class is also a type; only making one is dangerous.
        is_class = module.startswith("jinja2.")
        if (module in BANNED_CALLS and not is_class) or module.rpartition(".")[2] in BANNED_NAMES:
            yield f"import of {module}"


def called(call: ast.Call) -> Iterator[str]:
    name = dotted(call.func)
    if name in BANNED_CALLS:
        yield f"{name}(): {BANNED_CALLS[name]}"
    for keyword in call.keywords:
        is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and is_true:
            yield f"{keyword.arg}=True"
        if keyword.arg == "verify" and isinstance(keyword.value, ast.Constant):
            yield from () if keyword.value.value is not False else ("verify=False",)
    method = name.rpartition(".")[2] or getattr(call.func, "attr", "")
    if method in SQL_CALLS and call.args and is_put_together(call.args[0]):
        yield f"{method}() with SQL put together from strings: bind parameters"


def is_put_together(node: ast.AST) -> bool:
    """Is this text an f-string with values, a sum, a `%` or a `.format()`?"""
    if isinstance(node, ast.JoinedStr):
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        # SQLite's PRAGMA takes no parameters, and a number cannot carry SQL.
        return any(not (isinstance(v, ast.Call) and dotted(v.func) == "int") for v in values)
    if isinstance(node, ast.BinOp):
        sides = (node.left, node.right)
        return any(
            isinstance(side, ast.JoinedStr)
            or (isinstance(side, ast.Constant) and isinstance(side.value, str))
            for side in sides
        )
    return isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "format"


def compared(compare: ast.Compare) -> Iterator[str]:
    if not any(isinstance(operator, ast.Eq | ast.NotEq) for operator in compare.ops):
        return
    for side in (compare.left, *compare.comparators):
        name = getattr(side, "attr", getattr(side, "id", ""))
        if SECRET.search(name):
            yield f"{name} compared with == or !=: use hmac.compare_digest"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_does_what_ended_badly_elsewhere(path: Path) -> None:
    known = KNOWN.get(path.relative_to(ROOT).as_posix(), "nothing")

    assert [found for found in violations(path.read_text()) if known not in found] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import os, marshal",
        "from diskcache import Cache",
        "from llama_cpp import LlamaDiskCache",
        "llama_cpp.llama_sampler_init_grammar(a, b)",
        "eval('1')",
        "exec(code)",
        "__import__(name)",
        "import os\nos.system('ls')",
        "from os import system",
        "subprocess.run('ls', shell=True)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "torch.load(path)",
        "yaml.load(text)",
        "ast.literal_eval(text)",
        "jinja2.Environment()",
        "from jinja2 import Environment\nEnvironment()",
        "from jinja2 import Template\nTemplate(text)",
        "httpx.get(url, verify=False)",
        "connection.execute(f'select * from keys where id = {key}')",
        "connection.execute(text('select ' + column))",
        "connection.execute('select * from keys where id = %s' % key)",
        "session().execute('select {}'.format(x))",
        "text(f'{a}')",
        "if key.secret == given: pass",
        "given_hmac != expected",
        "x = pepper == old_pepper",
    ],
)
def test_a_violation_is_found(source: str) -> None:
    assert list(violations(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import json",
        "from jinja2 import Template\ndef render(template: Template): ...",
        "from jinja2.sandbox import ImmutableSandboxedEnvironment",
        "subprocess.run(['ls'], check=True)",
        "connection.execute(select(keys).where(keys.c.id == given))",
        "connection.execute('select 1')",
        "text(f'select 1')",
        "cursor.execute(f'PRAGMA busy_timeout={int(seconds)}')",
        "hmac.compare_digest(key.secret, given)",
        "if token == 3: pass",
        "if secret is None: pass",
    ],
)
def test_what_is_harmless_is_let_through(source: str) -> None:
    assert list(violations(source)) == []
