import asyncio
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.keys import Keys, open_pepper
from gateway.keys.text import Claimed, new_claim, parsed, written
from gateway.ledger import open_ledger
from gateway.logs import QUIET, configure_logs, masked
from gateway.settings import Settings

KEY = written(new_claim())


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)

    structlog.get_logger().info("model_loaded", engine="laptop", text="a\nb", path=Path("/x"))

    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "model_loaded",
        "level": "info",
        "engine": "laptop",
        "text": "a\nb",
        "path": "PosixPath('/x')",
    }


def test_libraries_take_the_same_way() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)

    logging.getLogger("some.library").warning("careful with %s", KEY)

    [line] = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "careful with ***",
        "some.library",
        "warning",
    )


def test_what_is_bound_to_the_call_is_in_every_line() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)

    with structlog.contextvars.bound_contextvars(call="req_1"):
        structlog.get_logger().info("ours")
        logging.getLogger("library").info("theirs")

    assert [line["call"] for line in lines(stream)] == ["req_1", "req_1"]


def test_the_level_is_kept_by_both() -> None:
    stream = io.StringIO()
    configure_logs("warning", "json", stream)

    structlog.get_logger().info("ours")
    logging.getLogger("library").info("theirs")

    assert stream.getvalue() == ""


def test_libraries_that_talk_about_every_request_are_quiet_even_in_debug() -> None:
    stream = io.StringIO()
    configure_logs("debug", "json", stream)

    for name in ("httpx", "sqlalchemy.engine.Engine", "aiosqlite", "uvicorn.access", "alembic.x"):
        logging.getLogger(name).info("GET /")
        logging.getLogger(name).debug("headers")

    assert stream.getvalue() == ""


def test_auto_is_for_people_on_a_terminal_and_json_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()

    configure_logs("info", "auto", terminal)
    structlog.get_logger().info("hello")
    configure_logs("info", "auto", file)
    structlog.get_logger().info("hello")

    assert not terminal.getvalue().startswith("{")
    assert "hello" in terminal.getvalue()
    assert lines(file)[0]["event"] == "hello"


def test_a_caller_cannot_steer_the_readers_terminal() -> None:
    stream = io.StringIO()
    configure_logs("info", "console", stream)

    structlog.get_logger().info("call_finished", model="\x1b[2J\rüber\nlevel=error")

    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
    assert "über" in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_traceback_shows_no_locals(format: str) -> None:
    stream = io.StringIO()
    configure_logs("info", format, stream)
    prompt = "a secret " + "prompt"

    try:
        raise RuntimeError("broken")
    except RuntimeError:
        structlog.get_logger().exception("call_failed")
        logging.getLogger("library").exception("failed too")

    assert stream.getvalue().count("RuntimeError: broken") == 2
    assert prompt not in stream.getvalue()


def test_an_exception_that_is_handed_over_is_shown() -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)

    structlog.get_logger().error("call_failed", exc_info=RuntimeError(f"with {KEY}"))

    assert "RuntimeError: with ***" in lines(stream)[0]["exception"]


LEAKS: list[Callable[[Any], None]] = [
    lambda log: log.info(KEY),
    lambda log: log.info("x", value=KEY),
    lambda log: log.info("x", headers={"Authorization": f"Bearer {KEY}"}),
    lambda log: log.info("x", headers=[(b"authorization", b"Bearer other-canary")]),
    lambda log: log.info("x", headers={"x-api-key": "other-canary"}),
    lambda log: log.info("x", nested=[{"deep": ({"API-Key": "other-canary"},)}]),
    lambda log: log.info("x", authorization="other-canary"),
    lambda log: log.info("x", text="Authorization: Bearer other-canary"),
    lambda log: log.info("x", text="authorization: other-canary"),
    lambda log: log.info("x", text="curl -H 'x-api-key: other-canary'"),
    lambda log: log.info("x", text='{"api_key": "other-canary"}'),
    lambda log: log.info("x", text=repr([(b"Authorization", b"Basic other-canary==")])),
    lambda log: log.info("x", value=KEY.encode()),
    lambda log: log.info("x", value={KEY: KEY}),
    lambda log: log.info("x", value=ValueError(f"bad key {KEY}")),
    lambda log: log.info("x", value=Claimed("id", KEY)),
]


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("stream_kind", [io.StringIO, Terminal])
@pytest.mark.parametrize("format", ["json", "console"])
def test_what_looks_like_a_credential_is_masked(
    leak: Callable[[Any], None], stream_kind: type[io.StringIO], format: str
) -> None:
    stream = stream_kind()
    configure_logs("info", format, stream)

    leak(structlog.get_logger())

    assert "***" in stream.getvalue()
    assert KEY.split("-")[3] not in stream.getvalue()
    assert "other-canary" not in stream.getvalue()


def test_what_only_resembles_a_credential_stays() -> None:
    harmless = "the task-list-of-the-day is at risk-assessment-board; basically an api for keys"

    assert masked(harmless) == harmless
    assert masked('{"key": "k3v90q2mxw7a", "event": "call_finished"}') == (
        '{"key": "k3v90q2mxw7a", "event": "call_finished"}'
    )


@given(st.dictionaries(st.text(), st.text() | st.binary() | st.floats() | st.none(), max_size=5))
def test_any_event_is_one_line_of_json(fields: dict[str, Any]) -> None:
    stream = io.StringIO()
    configure_logs("info", "json", stream)
    reserved = {"event", "level", "timestamp", "exc_info", "stack_info", "stack", "exception"}

    structlog.get_logger().info(
        "x", **{name: value for name, value in fields.items() if name not in reserved}
    )

    assert lines(stream)[0]["event"] == "x"


def test_no_log_line_about_keys_holds_a_secret(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure_logs("debug", "json", stream)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG)

    async def all_that_keys_do() -> list[str]:
        settings = Settings(data_dir=tmp_path)
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            new = await keys.create("me", "laptop")
            claim = parsed(new.secret)
            assert claim is not None
            forged = written(Claimed(claim.id, claim.secret[::-1]))
            await keys.verify(new.secret)
            await keys.verify(forged)
            await keys.verify(new.secret[:-1])
            await keys.list()
            await keys.revoke(new.key.id)
            await keys.verify(new.secret)
        return [claim.secret, claim.secret[::-1], new.secret]

    secrets = asyncio.run(all_that_keys_do(), debug=True)

    assert "aiosqlite" in stream.getvalue()
    secrets.append((tmp_path / "pepper").read_text().strip())
    assert [secret for secret in secrets if secret in stream.getvalue()] == []
