"""`pull`, `push`, `list`, `show`, `cp`, `rm`, `ps`, `stop`, as a user types them."""

import json
import signal
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.gateway.cli.conftest import Typed
from tests.gateway.cli.fake_gateway import CARD, LAYER, FakeGateway
from tests.gateway.cli.typing_user import typing_user

HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"

COMMANDS_THAT_CHANGE = [
    ["pull", "other"], ["push", "tiny"], ["cp", "tiny", "other"], ["rm", "tiny"],
]  # fmt: skip


@pytest.mark.parametrize("job", ["pull", "push"])
def test_a_job_elsewhere_than_on_a_terminal_is_told_in_plain_lines(
    fake: FakeGateway, typed: Typed, job: str
) -> None:
    result = typed(job, "qwen3:0.6b")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "pulling manifest",
        "pulling 6a6a6a6a6a6a: 4.0 MB",
        "pulling 6a6a6a6a6a6a: done",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert fake.bodies(f"/api/{job}") == [
        {"model": "qwen3:0.6b", "insecure": False, "stream": True}
    ]


def test_a_job_for_a_script_is_a_line_of_json_for_each_step(
    fake: FakeGateway, typed: Typed
) -> None:
    result = typed("pull", "a", "b", "--insecure", "--json")

    steps = [json.loads(line) for line in result.stdout.splitlines()]
    assert steps == [*fake.pull, *fake.pull]
    assert fake.bodies("/api/pull") == [
        {"model": f"http://{name}", "insecure": True, "stream": True} for name in ("a", "b")
    ]


def test_a_job_that_fails_on_its_way_says_why(fake: FakeGateway, typed: Typed) -> None:
    fake.pull = [{"status": "pulling manifest"}, {"error": "the disk is full"}]

    result = typed("pull", "other")

    assert result.exit_code == 1
    assert "the disk is full" in result.stderr


def test_a_job_that_ends_before_success_has_failed(fake: FakeGateway, typed: Typed) -> None:
    fake.pull = fake.pull[:3]

    result = typed("pull", "other")

    assert result.exit_code == 1
    assert "broke off" in result.stderr


def test_ctrl_c_ends_a_pull_with_the_way_to_go_on(fake: FakeGateway) -> None:
    fake.pull = [*fake.pull[:3], threading.Event()]
    words = [sys.executable, "-m", "gateway", "pull", "other", "--url", fake.url]

    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        seen = ""
        while "pulling 6a6a6a6a6a6a" not in seen:
            seen += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        seen += process.stderr.read()

    assert process.returncode == 130
    assert "`penstock pull other` goes on from there" in seen
    assert "Traceback" not in seen
    assert fake.hung_up.wait(10)  # the gateway was told to stop, too


def test_list_has_ollamas_columns(typed: Typed) -> None:
    result = typed("list")

    heading, row = result.stdout.splitlines()
    assert heading.split() == ["name", "id", "size", "modified"]
    assert row.split()[:4] == ["tiny:latest", "5f5f5f5f5f5f", "133", "MB"]
    assert row.endswith("ago")


def test_list_may_be_of_names_that_begin_alike_and_json(fake: FakeGateway, typed: Typed) -> None:
    fake.models["qwen3:0.6b"] = {}

    assert [one["name"] for one in json.loads(typed("list", "QWEN", "--json").stdout)] == [
        "qwen3:0.6b"
    ]
    assert [one["name"] for one in json.loads(typed("ls", "--json").stdout)] == [*fake.models]
    assert typed("list", "nothing").stdout == ""


def test_ps_shows_where_a_model_is_and_how_long_it_stays(typed: Typed) -> None:
    result = typed("ps")

    heading, row = result.stdout.splitlines()
    assert heading.split() == ["name", "id", "size", "processor", "context", "until"]
    assert "75%/25% CPU/GPU" in row
    assert row.endswith("forever")
    assert json.loads(typed("ps", "--json").stdout)[0]["name"] == "tiny:latest"


def test_ps_says_that_nothing_is_loaded(fake: FakeGateway, typed: Typed) -> None:
    fake.models.clear()

    result = typed("ps")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "no model is loaded" in result.stderr


def test_show_is_a_card_of_the_model(typed: Typed) -> None:
    shown = typed("show", "tiny").stdout

    for row in ("architecture llama", "parameters 124.7M", "vision", "be kind"):
        assert row in " ".join(shown.split())
    assert "with three" in shown
    assert "\n    lines" not in shown  # a licence is cut after two lines
    assert "tokenizer.ggml.tokens" not in shown


def test_show_verbose_has_metadata_and_tensors(fake: FakeGateway, typed: Typed) -> None:
    shown = typed("show", "tiny", "-v").stdout

    assert "[a, b, c, … 4 in all]" in shown
    assert "token_embd.weight    Q8_0    [768, 32000]" in shown
    assert fake.bodies("/api/show") == [{"model": "tiny", "verbose": True}]


@pytest.mark.parametrize("part", ["license", "modelfile", "parameters", "system", "template"])
def test_show_gives_one_part_as_it_is(typed: Typed, part: str) -> None:
    assert typed("show", "tiny", f"--{part}").stdout == f"{CARD[part]}\n"


def test_show_says_what_a_model_does_not_have(fake: FakeGateway, typed: Typed) -> None:
    fake.models["tiny:latest"] = {**CARD, "system": ""}

    result = typed("show", "tiny", "--system")

    assert result.exit_code == 1
    assert "tiny has no system message" in result.stderr
    assert json.loads(typed("show", "tiny", "--json").stdout)["system"] == ""


def test_cp_and_rm_say_what_they_did(fake: FakeGateway, typed: Typed) -> None:
    copied = typed("cp", "tiny", "other")
    removed = typed("rm", "tiny", "nothing", "other")

    assert "copied tiny to other" in copied.stderr
    assert removed.exit_code == 1
    assert "removed tiny\nError: model 'nothing' not found" in removed.stderr
    assert "removed other" in removed.stderr
    assert fake.models == {}


def test_stop_takes_a_model_out_of_memory(fake: FakeGateway, typed: Typed) -> None:
    result = typed("stop", "tiny")

    assert result.exit_code == 0
    assert fake.bodies("/api/generate") == [
        {"model": "tiny", "prompt": "", "keep_alive": 0, "stream": False}
    ]


@pytest.mark.parametrize("words", [["show", "x"], ["stop", "x"], ["cp", "x", "y"], ["rm", "x"]])
def test_a_model_that_is_not_there_is_named(typed: Typed, words: list[str]) -> None:
    result = typed(*words)

    assert result.exit_code == 1
    assert "model 'x' not found" in result.stderr


@pytest.mark.parametrize("words", COMMANDS_THAT_CHANGE, ids=" ".join)
def test_who_may_not_change_the_library_is_told(
    fake: FakeGateway, typed: Typed, words: list[str]
) -> None:
    fake.refusal = (403, "this wants the role admin")

    result = typed(*words)

    assert result.exit_code == 1
    assert "this wants the role admin" in result.stderr


@pytest.mark.parametrize("words", [*COMMANDS_THAT_CHANGE, ["list"]], ids=" ".join)
def test_a_wrong_key_is_told_with_the_way_to_pass_another(
    fake: FakeGateway, typed: Typed, words: list[str]
) -> None:
    fake.refusal = (401, "this key is not known")

    result = typed(*words) if words != ["list"] else typed("stop", "tiny")

    assert result.exit_code == 1
    assert "this key is not known; pass a key with --key" in result.stderr


@pytest.mark.parametrize(
    "words", [*COMMANDS_THAT_CHANGE, ["list"], ["show", "x"], ["ps"], ["stop", "x"]], ids=" ".join
)
def test_a_named_gateway_that_does_not_answer_is_never_replaced_by_an_own_one(
    words: list[str],
) -> None:
    result = CliRunner().invoke(main, [*words, "--url", "http://127.0.0.1:9"])

    assert result.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:9" in result.stderr


def test_a_pull_on_a_terminal_is_a_bar_that_stays(fake: FakeGateway) -> None:
    with typing_user("pull", "other", "--url", fake.url, columns=100) as user:
        assert user.waits() == 0

    assert "pulling 6a6a6a6a6a6a 100%" in user.shown
    assert "4.0/4.0 MB" in user.shown
    assert "success" in user.shown
    assert LAYER not in user.shown


def test_ctrl_c_leaves_the_terminal_as_it_was(fake: FakeGateway) -> None:
    fake.pull = [*fake.pull[:3], threading.Event()]

    with typing_user("pull", "other", "--url", fake.url, columns=100) as user:
        user.sees(" 25%")
        user.presses(b"\x03")
        user.sees("`penstock pull other` goes on from there")
        assert user.waits() == 130

    assert user.raw.rfind(SHOW_CURSOR) > user.raw.rfind(HIDE_CURSOR) >= 0
