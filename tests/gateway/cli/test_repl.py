"""Conversations at a terminal, typed key by key."""

import base64
import readline
import stat
import threading
from pathlib import Path

import pytest

from tests.gateway.cli.conftest import Sitting
from tests.gateway.cli.fake_gateway import FakeGateway, said

CTRL_C = b"\x03"
UP = b"\x1b[A"


def asked(fake: FakeGateway) -> list[str]:
    """The last message of each question."""
    return [
        body["messages"][-1]["content"] for body in fake.bodies("/api/chat") if body["messages"]
    ]


def test_a_conversation_goes_on_until_it_is_cleared(fake: FakeGateway, sitting: Sitting) -> None:
    with sitting("--system", "be kind") as user:
        for line in ("one", "two", "/clear", "three"):
            user.types(line)
            user.sees(">>> ")
        status = user.leaves()

    load, one, two, three = fake.bodies("/api/chat")
    assert load["messages"] == []
    system = {"role": "system", "content": "be kind"}
    answer = {"role": "assistant", "content": "hello there"}
    assert one["messages"] == [system, {"role": "user", "content": "one"}]
    assert two["messages"] == [
        system, {"role": "user", "content": "one"}, answer, {"role": "user", "content": "two"},
    ]  # fmt: skip
    assert three["messages"] == [system, {"role": "user", "content": "three"}]
    assert status == 0


def test_three_quotes_begin_and_end_a_message_of_several_lines(
    fake: FakeGateway, sitting: Sitting
) -> None:
    with sitting() as user:
        user.types('"""first')
        user.sees("... ")
        user.types("second")
        user.sees("... ")
        user.types('third"""')
        user.sees("hello there")
        user.sees(">>> ")
        user.types('/set system """be')
        user.sees("... ")
        user.types('kind"""')
        user.sees("system message set")
        user.sees(">>> ")
        user.types('"""one line"""')
        user.sees("hello there")

    assert asked(fake) == ["first\nsecond\nthird", "one line"]
    assert fake.bodies("/api/chat")[-1]["messages"][0]["content"] == "be\nkind"


@pytest.mark.skipif("libedit" in (readline.__doc__ or ""), reason="libedit takes paste as keys")
def test_what_is_pasted_with_its_lines_is_one_message(fake: FakeGateway, sitting: Sitting) -> None:
    with sitting() as user:
        user.presses(b"\x1b[200~one\ntwo\x1b[201~\n")
        user.sees("hello there")

    assert asked(fake) == ["one\ntwo"]


def test_ctrl_c_stops_the_answer_and_not_the_program(fake: FakeGateway, sitting: Sitting) -> None:
    fake.answer = [*said("half")[:1], threading.Event()]
    with sitting() as user:
        user.types("question")
        user.sees("half")
        user.presses(CTRL_C)
        user.sees("stopped")
        user.sees(">>> ")
        assert fake.hung_up.wait(10)
        fake.answer = said("whole")
        user.types("again")
        user.sees("whole")
        user.sees(">>> ")
        assert user.leaves() == 0

    assert fake.bodies("/api/chat")[-1]["messages"] == [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "half"},
        {"role": "user", "content": "again"},
    ]


def test_ctrl_c_at_the_prompt_drops_the_line_and_says_how_to_leave(
    fake: FakeGateway, sitting: Sitting
) -> None:
    with sitting() as user:
        user.presses(b"never sent")
        user.sees("never sent")
        user.interrupts("Ctrl-D or /bye to leave")
        user.sees(">>> ")
        user.types('"""nor this')
        user.sees("... ")
        user.interrupts("Ctrl-D or /bye to leave")
        user.sees(">>> ")
        user.types("hi")
        user.sees("hello there")

    assert asked(fake) == ["hi"]


def test_a_picture_dropped_on_the_terminal_is_sent(
    fake: FakeGateway, sitting: Sitting, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    with sitting() as user:
        user.types(f"{picture} what is it?")
        user.sees("added a.png")
        user.sees("hello there")

    [message] = fake.bodies("/api/chat")[-1]["messages"]
    assert message["content"] == "what is it?"
    assert message["images"] == [base64.b64encode(b"picture").decode()]


def test_thinking_is_set_apart_and_timings_follow(fake: FakeGateway, sitting: Sitting) -> None:
    fake.answer = said("42", thinking="six times seven")
    with sitting() as user:
        user.types("/set verbose")
        user.sees("timings are shown")
        user.types("question")
        user.sees("Thinking...")
        user.sees("six times seven")
        user.sees("...done thinking.")
        user.sees("42")
        user.sees("eval rate:")
        user.sees("10.00 tokens/s")


def test_lines_are_broken_between_words(fake: FakeGateway, sitting: Sitting) -> None:
    fake.answer = said("some wor", "ds that are long", "er than a narrow ter", "minal")
    with sitting(columns=30) as user:
        user.types("question")
        user.sees("words that")
        wrapped = user.sees(">>> ")
        user.types("/set nowordwrap")
        user.sees(">>> ")
        user.types("question")
        user.sees("some words that are longer than a narrow terminal")

    assert "\nthan a narrow terminal\n" in wrapped


def test_an_error_does_not_end_the_conversation(fake: FakeGateway, sitting: Sitting) -> None:
    fake.answer = [{"error": "the engine died"}]
    with sitting() as user:
        user.types("one")
        user.sees("the engine died")
        user.sees(">>> ")
        fake.answer = said("hello")
        user.types("two")
        user.sees("hello")

    assert fake.bodies("/api/chat")[-1]["messages"] == [{"role": "user", "content": "two"}]


def test_lines_come_back_with_the_arrow_keys_in_the_next_sitting(
    fake: FakeGateway, sitting: Sitting, tmp_path: Path
) -> None:
    with sitting() as user:
        user.types("typed before")
        user.sees("hello there")
        user.sees(">>> ")
        user.leaves()
    with sitting() as user:
        user.presses(UP)
        user.sees("typed before")
        user.types("")
        user.sees("hello there")

    assert asked(fake) == ["typed before", "typed before"]
    history = tmp_path / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_what_has_no_effect_is_told_once(fake: FakeGateway, sitting: Sitting) -> None:
    fake.headers = {"x-penstock-ignored": "options.mirostat"}
    with sitting() as user:
        user.types("one")
        user.sees("mirostat has no effect here")
        user.sees(">>> ")
        user.types("two")
        assert "mirostat" not in user.sees(">>> ")
