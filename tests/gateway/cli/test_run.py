"""`penstock run` with one question; conversations are in test_repl.py."""

import base64
import json
from pathlib import Path

import pytest

from tests.gateway.cli.conftest import Typed
from tests.gateway.cli.fake_gateway import CARD, FakeGateway, said

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg+M9QDwADgQF/e5IkGQAAAABJRU5ErkJggg=="
)


def test_the_answer_alone_is_on_standard_output(fake: FakeGateway, typed: Typed) -> None:
    fake.answer = said("hello", " there", thinking="hm")

    result = typed("run", "tiny", "how", "are", "you")

    assert result.exit_code == 0
    assert result.stdout == "hello there\n"
    assert "hm" in result.stderr
    assert fake.bodies("/api/chat") == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "how are you"}],
            "stream": True,
        }
    ]


def test_every_option_is_sent(fake: FakeGateway, typed: Typed) -> None:
    typed(
        "run", "tiny", "--system", "be kind", "--temperature", "0", "--max-tokens", "7",
        "--format", "json", "--think=low", "--keepalive", "10m", "hi",
    )  # fmt: skip

    [body] = fake.bodies("/api/chat")
    assert body["messages"][0] == {"role": "system", "content": "be kind"}
    assert body["options"] == {"temperature": 0, "num_predict": 7}
    assert (body["format"], body["think"], body["keep_alive"]) == ("json", "low", "10m")


@pytest.mark.parametrize(
    ("words", "think"),
    [(["--think"], True), (["--think=false"], False), (["--think=high"], "high")],
)
def test_think_takes_a_word_only_after_an_equals_sign(
    fake: FakeGateway, typed: Typed, words: list[str], think: object
) -> None:
    typed("run", "tiny", *words, "high", "hopes")

    [body] = fake.bodies("/api/chat")
    assert body["think"] == think
    assert body["messages"][-1]["content"] == "high hopes"


@pytest.mark.parametrize(("given", "sent"), [("0", 0), ("-1", -1), ("90", 90), ("1h30m", "1h30m")])
def test_keepalive_is_seconds_or_a_duration(
    fake: FakeGateway, typed: Typed, given: str, sent: object
) -> None:
    typed("run", "tiny", f"--keepalive={given}", "hi")

    assert fake.bodies("/api/chat")[0]["keep_alive"] == sent


def test_a_duration_or_format_that_is_none_is_explained(typed: Typed) -> None:
    assert "is no duration" in typed("run", "tiny", "--keepalive", "soon", "hi").stderr
    assert "neither json nor a file" in typed("run", "tiny", "--format", "xml", "hi").stderr


def test_the_format_may_be_a_schema_in_a_file(
    fake: FakeGateway, typed: Typed, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')

    typed("run", "tiny", "--format", str(schema), "hi")

    assert fake.bodies("/api/chat")[0]["format"] == {"type": "object"}


def test_a_pipe_comes_before_the_words(fake: FakeGateway, typed: Typed) -> None:
    typed("run", "tiny", stdin="from a pipe\n")
    typed("run", "tiny", "sum", "it up", stdin="notes\n")

    asked = [body["messages"][-1]["content"] for body in fake.bodies("/api/chat")]
    assert asked == ["from a pipe", "notes sum it up"]


def test_an_empty_question_loads_the_model(fake: FakeGateway, typed: Typed) -> None:
    result = typed("run", "tiny", "", "--keepalive=-1")

    assert (result.exit_code, result.stdout) == (0, "")
    assert fake.bodies("/api/chat") == [
        {"model": "tiny", "keep_alive": -1, "messages": [], "stream": False}
    ]


def test_verbose_has_the_timings(typed: Typed) -> None:
    shown = typed("run", "tiny", "--verbose", "hi").stderr

    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "total duration: 2.5s",
        "load duration: 500ms",
        "prompt eval count: 10 token(s)",
        "prompt eval duration: 100ms",
        "prompt eval rate: 100.00 tokens/s",
        "eval count: 20 token(s)",
        "eval duration: 2s",
        "eval rate: 10.00 tokens/s",
    ]


def test_thinking_can_be_hidden(fake: FakeGateway, typed: Typed) -> None:
    fake.answer = said("hello", thinking="secret thoughts")

    assert "secret" not in typed("run", "tiny", "--hidethinking", "hi").output


def test_a_picture_named_in_the_question_is_sent(
    fake: FakeGateway, typed: Typed, tmp_path: Path
) -> None:
    picture = tmp_path / "my pixel.png"
    picture.write_bytes(PIXEL)

    typed("run", "tiny", f"what is in '{picture}'?")
    typed("run", "tiny", "and in", str(picture).replace(" ", "\\ "))
    typed("run", "tiny", "missing.png is text")

    quoted, escaped, missing = (body["messages"][-1] for body in fake.bodies("/api/chat"))
    image = base64.b64encode(PIXEL).decode()
    assert quoted == {"role": "user", "content": "what is in ?", "images": [image]}
    assert escaped == {"role": "user", "content": "and in", "images": [image]}
    assert missing == {"role": "user", "content": "missing.png is text"}


def test_for_a_model_that_does_not_see_a_path_stays_text(
    fake: FakeGateway, typed: Typed, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PIXEL)
    fake.models["tiny:latest"] = {**CARD, "capabilities": ["completion"]}

    typed("run", "tiny", f"convert {tmp_path}/a.png")

    [body] = fake.bodies("/api/chat")
    assert body["messages"][-1] == {"role": "user", "content": f"convert {tmp_path}/a.png"}


def test_an_embedding_model_prints_the_vector(fake: FakeGateway, typed: Typed) -> None:
    fake.models["tiny:latest"] = {**CARD, "capabilities": ["embedding"]}

    result = typed("run", "tiny", "--dimensions", "2", "--no-truncate", "some text")

    assert json.loads(result.stdout) == [0.25, 0.5]
    assert fake.bodies("/api/embed") == [
        {"model": "tiny", "input": "some text", "dimensions": 2, "truncate": False}
    ]
    assert typed("run", "tiny", "").exit_code == 2


def test_a_model_that_is_not_there_is_pulled_first(fake: FakeGateway, typed: Typed) -> None:
    result = typed("run", "other", "hi")

    assert result.stdout == "hello there\n"
    assert "verifying sha256 digest" in result.stderr
    assert [body["model"] for body in fake.bodies("/api/pull")] == ["other"]


def test_a_model_that_can_be_neither_found_nor_pulled_is_named(
    fake: FakeGateway, typed: Typed
) -> None:
    fake.pull = [{"status": "pulling manifest"}, {"error": "the registry has no such model"}]
    failed = typed("run", "other", "hi")
    fake.refusal = (403, "pulling wants the role admin")
    refused = typed("run", "other", "hi")

    assert failed.exit_code == refused.exit_code == 1
    assert "model 'other' not found" in failed.stderr
    assert "could not be pulled: the registry has no such model" in failed.stderr
    assert "Error: model 'other' not found" in refused.stderr


def test_an_error_in_mid_stream_is_told_after_what_was_said(
    fake: FakeGateway, typed: Typed
) -> None:
    fake.answer = [*said("half")[:-1], {"error": "the engine died"}]

    result = typed("run", "tiny", "hi")

    assert result.exit_code == 1
    assert result.stdout == "half\n"
    assert "the engine died" in result.stderr


def test_what_has_no_effect_is_told(fake: FakeGateway, typed: Typed) -> None:
    fake.headers = {"x-penstock-ignored": "options.num_gpu, keep_alive", "x-penstock-num-ctx": "8"}

    result = typed("run", "tiny", "hi")

    assert result.stdout == "hello there\n"
    assert result.stderr.splitlines() == [
        "num_gpu has no effect here",
        "keep_alive has no effect here",
        "the context stays at 8 tokens: it is the gateway's to say",
    ]
