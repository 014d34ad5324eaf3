"""`penstock parity`, as a user types it: on real engines, and against served gateways."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.keys import Keys, open_pepper
from gateway.ledger import open_ledger
from gateway.settings import Settings
from tests.fakes import ScriptedEngine
from tests.gguf_files import CHATML, write_gguf
from tests.serving import Server, scripted_gateway, serving, write_policy

KEYED = {"gateway.toml": 'plugins = ["api_keys", "allow_lists", "defaults", "routing"]'}
GGUF_PLUGINS = 'plugins = ["api_keys", "allow_lists", "defaults", "routing", "gguf_engine"]'
PROMPTS = [
    '{"name": "greet", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}',
    '{"name": "go on", "prompt": "the", "max_tokens": 8}',
]


def parity(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env=env).invoke(main, ["parity", *words])


def gguf_policy(directory: Path, models_dir: Path | None = None, **engine: object) -> str:
    """A policy of the gguf engine which lets nobody in; `models_dir` for other files."""
    lines = ['[laptop]\nkind = "gguf"\nnum_threads = 1\ncontext_tokens = 1024']
    lines += [f'models_dir = "{models_dir}"'] if models_dir is not None else []
    lines += [f"{name} = {json.dumps(value)}" for name, value in engine.items()]
    files = {
        "gateway.toml": GGUF_PLUGINS,
        "engines.toml": "\n".join(lines),
        "models.toml": '["*"]\n[["*".targets]]\nengine = "laptop"',
        "teams.toml": "",
    }
    return str(write_policy(directory, files))


def new_key(settings: Settings) -> str:
    async def made() -> str:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            return (await keys.create("me", "parity")).secret

    return asyncio.run(made())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_policy(tmp_path_factory.mktemp("parity") / "policy")
    with serving(scripted_gateway(directory, {"scripted": ScriptedEngine()})) as running:
        yield running


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(PROMPTS))
    return str(path)


def test_the_starter_is_equal_under_two_policies_with_the_shipped_prompts(tmp_path: Path) -> None:
    dev = gguf_policy(tmp_path / "dev")
    prod = gguf_policy(tmp_path / "prod", num_slots=2)
    report = tmp_path / "report.json"

    result = parity(
        "starter", "--policy", dev, "--policy", prod, "--max-tokens", "48", "--skip", "long*",
        "--require", "prompt=1", "--json", str(report),
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "as equal as required" in result.stdout
    (comparison,) = json.loads(report.read_text())["comparisons"]
    assert comparison["aspects"]["prompt"]["compared"] > 20
    assert comparison["aspects"]["tool_calls"]["agreeing"] >= 4
    assert comparison["aspects"]["json"]["agreeing"] >= 4


def test_a_child_process_makes_no_difference(tmp_path: Path) -> None:
    dev = gguf_policy(tmp_path / "dev")
    prod = gguf_policy(tmp_path / "prod", isolation="process")

    result = parity(
        "starter", "--policy", dev, "--policy", prod, "--only", "plain", "--only", "tool auto",
        "--max-tokens", "16", "--require", "prompt=1",
    )  # fmt: skip

    assert result.exit_code == 0, result.output


def test_another_template_in_the_other_policys_file_is_found(tmp_path: Path, mine: str) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    templates = [CHATML, CHATML.replace("assistant\\n' }}{%- endif", "assistant' }}{%- endif")]
    for folder, template in zip(folders, templates, strict=True):
        folder.mkdir()
        write_gguf(folder / "tiny.gguf", chat_template=template, context_tokens=1024)
    policies = [gguf_policy(tmp_path / f"p-{folder.name}", folder) for folder in folders]

    result = parity("tiny", "--policy", policies[0], "--policy", policies[1], "--prompts", mine)

    assert result.exit_code == 1, result.output
    assert r"<|im_start|>assistant’: [\n] | the end" in result.stdout.replace("s][s", "ss")
    assert "they differ in prompt, prompt_tokens" in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith("go on"))
    assert "≠" not in row  # a raw prompt needs no template


def test_a_policy_and_a_url_are_compared_in_the_order_they_are_named(
    tmp_path: Path, server: Server, mine: str
) -> None:
    dev = gguf_policy(tmp_path / "dev")

    result = parity(
        "chat-small", "--url", f"{server.url}/v1", "--policy", f"{dev}#starter", "--prompts", mine,
        "--json", "-", "--require", "all=0",
    )  # fmt: skip

    content = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [(side["name"], side["model"]) for side in content["sides"]] == [
        (f"{server.url}/v1", "chat-small"),
        (dev, "starter"),
    ]
    assert content["prompts"][0]["findings"][0]["text"]["agrees"] is False


def test_two_urls_are_equal_or_not_by_what_they_answer(
    tmp_path: Path, server: Server, mine: str
) -> None:
    other = write_policy(tmp_path / "other")
    engine = ScriptedEngine(["hello", " you"])
    with serving(scripted_gateway(other, {"scripted": engine})) as second:
        urls = ("--url", server.url, "--url", second.url, "--prompts", mine)
        strict = parity("chat-small", *urls)
        lenient = parity("chat-small", *urls, "--require", "text=0")
        same = parity("chat-small", *urls[:2], "--url", server.url, "--prompts", mine)

    assert (strict.exit_code, lenient.exit_code, same.exit_code) == (1, 0, 0)
    assert "they differ in text" in strict.stdout


def test_each_url_gets_its_own_key_and_the_environments_goes_to_one_alone(
    tmp_path: Path, server: Server, mine: str
) -> None:
    gateway = scripted_gateway(
        write_policy(tmp_path / "locked", KEYED), {"scripted": ScriptedEngine()}
    )
    key = new_key(gateway.settings)
    with serving(gateway) as second:
        urls = ("--url", server.url, "--url", second.url, "--prompts", mine)
        with_keys = parity("chat-small", *urls, "--key", "-", "--key", key)
        one_key = parity("chat-small", *urls, "--key", key)
        from_env = parity("chat-small", *urls, env={"PENSTOCK_API_KEY": key})

    assert with_keys.exit_code == 0, with_keys.output
    assert (one_key.exit_code, from_env.exit_code) == (2, 2)
    assert "there are 1 keys for 2 URLs" in one_key.output
    assert "lets nobody in without a valid key" in from_env.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["starter", "--policy", "DEV"], "name at least two places"),
        (["starter", "--policy", "DEV", "--policy", "none"], "none"),
        (["starter", "--policy", "DEV", "--url", "http://127.0.0.1:9"], "no server answers at"),
        (["starter", "--policy", "DEV", "--policy", "DEV#statrer", "--only", "plain"],
         'mean "starter"'),
        (["starter", "--policy", "DEV", "--policy", "DEV", "--require", "txt=1"], "no aspect"),
        (["starter", "--policy", "DEV", "--policy", "DEV", "--only", "x"], "leave no prompt"),
        (["starter", "--policy", "DEV", "--policy", "DEV", "--prompts", "x"], "No such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_told_with_status_2(
    tmp_path: Path, words: list[str], said: str
) -> None:
    dev = gguf_policy(tmp_path / "dev")

    result = parity(*(word.replace("DEV", dev) for word in words))

    assert result.exit_code == 2, result.output
    assert said in result.output


def test_its_help_loads_nothing_heavy() -> None:
    heavy = {"llama_cpp", "litestar", "httpx", "jsonschema", "rich"}
    code = (
        "import sys; from gateway.cli import main;"
        "main(['parity', '--help'], standalone_mode=False);"
        f"print(sorted({heavy} & sys.modules.keys()))"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert "ASPECT=SHARE" in shown.stdout, shown.stderr
    assert shown.stdout.endswith("[]\n")
