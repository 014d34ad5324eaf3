"""What lines that begin with a slash do in a conversation."""

from pathlib import Path

import pytest

from tests.gateway.cli.conftest import Sitting
from tests.gateway.cli.fake_gateway import CARD, FakeGateway


def test_bye_leaves(sitting: Sitting) -> None:
    with sitting() as user:
        user.types("/bye")

        assert user.waits() == 0


def test_set_changes_what_the_next_question_says(fake: FakeGateway, sitting: Sitting) -> None:
    lines = (
        "/set parameter temperature 0.25", "/set parameter num_ctx 4096",
        "/set parameter stop a 'b c'", "/set format json", "/set think high",
    )  # fmt: skip
    with sitting("--keepalive", "5m") as user:
        for line in (*lines, "one", "/set noformat", "/set nothink", "two"):
            user.types(line)
            user.sees(">>> ")

    one, two = fake.bodies("/api/chat")[1:]
    assert one["options"] == {"temperature": 0.25, "num_ctx": 4096, "stop": ["a", "b c"]}
    assert (one["format"], one["think"], one["keep_alive"]) == ("json", "high", "5m")
    assert "format" not in two
    assert two["think"] is False


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/set", "cannot be set"),
        ("/set nonsense 1", "'nonsense' cannot be set"),
        ("/set parameter temperature", "/set parameter NAME VALUE"),
        ("/set parameter stop 'a", "no closing quotation"),
        ("/set format xml", "formats are: json"),
        ("/set think much", "/set think takes nothing, low, medium, high"),
        ("/show", "/show takes a part"),
        ("/save", "/save MODEL needs a name"),
        ("/load nothing", "model 'nothing' not found"),
        ("/nonsense", "there is no /nonsense; /? lists what there is"),
    ],
)
def test_a_command_that_cannot_be_done_says_why_and_nothing_ends(
    sitting: Sitting, line: str, problem: str
) -> None:
    with sitting() as user:
        user.types(line)
        user.sees(problem)
        user.sees(">>> ")
        assert user.leaves() == 0


def test_show_and_list_and_help_say_what_there_is(sitting: Sitting) -> None:
    with sitting("--system", "mine") as user:
        for line, text in (
            ("/show info", "124.7M"),
            ("/show license", "Free for all"),
            ("/show modelfile", "FROM tiny"),
            ("/show parameters", '"a b"'),
            ("/show template", "{{ .Prompt }}"),
            ("/show system", "mine"),
            ("/list", "tiny:latest"),
            ("/?", "/save MODEL"),
            ("/? set", "/set nowordwrap"),
            ("/? /show", "/show template"),
            ("/? shortcuts", "Ctrl-R"),
        ):
            user.types(line)
            user.sees(text)
            user.sees(">>> ")


def test_save_makes_a_model_that_begins_here_and_load_goes_to_another(
    fake: FakeGateway, sitting: Sitting
) -> None:
    fake.models["other:latest"] = {**CARD}
    with sitting("--system", "be kind") as user:
        for line, text in (
            ("/set parameter seed 7", "seed is 7"),
            ("hi", "hello there"),
            ("/save mine", "saved as mine"),
            ("/load other", "this is other"),
            ("again", "hello there"),
        ):
            user.types(line)
            user.sees(text)
            user.sees(">>> ")

    assert fake.bodies("/api/create") == [
        {
            "model": "mine",
            "from": "tiny",
            "system": "be kind",
            "parameters": {"seed": 7},
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "hello there"},
            ],
            "stream": True,
        }
    ]
    last = fake.bodies("/api/chat")[-1]
    assert last["model"] == "other"
    assert last["messages"] == [{"role": "user", "content": "again"}]


@pytest.mark.parametrize("by", ["variable", "command"])
def test_no_line_is_kept_if_nobody_wants_it(sitting: Sitting, tmp_path: Path, by: str) -> None:
    environment = {"OLLAMA_NOHISTORY": "1"} if by == "variable" else {}
    with sitting(environment=environment) as user:
        if by == "command":
            user.types("/set nohistory")
            user.sees(">>> ")
        user.types("a secret")
        user.sees("hello there")
        user.sees(">>> ")
        user.leaves()

    assert "a secret" not in (tmp_path / "history").read_text()


def test_tab_completes_a_command(sitting: Sitting) -> None:
    with sitting() as user:
        user.presses(b"/cl\t")
        user.sees("/clear")
        user.types("")
        user.sees("forgotten")


def test_what_a_model_begins_with_is_shown_and_saved_but_not_sent(
    fake: FakeGateway, sitting: Sitting
) -> None:
    before = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"}]
    fake.models["tiny:latest"] = {**CARD, "messages": before}
    with sitting() as user:
        user.sees("who?\nme\n")  # the first prompt that was seen is the model's own
        user.sees(">>> ")
        user.types("hi")
        user.sees("hello there")
        user.sees(">>> ")
        user.types("/save mine")
        user.sees("saved as mine")

    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]
    assert fake.bodies("/api/chat")[-1]["messages"] == said[:1]
    assert fake.bodies("/api/create")[0]["messages"] == [*before, *said]
