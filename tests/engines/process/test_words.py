import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from engines.process.words import MAX_LINE_BYTES, MAX_LINES_PER_SECOND, Words

ROOT = Path(__file__).parents[3]


async def heard(*written: bytes) -> tuple[Words, list[MutableMapping[str, Any]]]:
    words = Words("gpu0")
    end, start = os.pipe()
    with structlog.testing.capture_logs() as logs:
        await words.read(os.fdopen(end, "rb", buffering=0))
        with os.fdopen(start, "wb", buffering=0) as pipe:
            for data in written:
                await asyncio.to_thread(pipe.write, data)
        await words.ended.wait()
    return words, logs


async def test_a_line_that_is_no_event_is_said_by_the_engine() -> None:
    words, logs = await heard(b"ggml: hel", b"lo\nand ", b"more")

    assert [(line["event"], line["engine"], line["text"]) for line in logs] == [
        ("engine_said", "gpu0", "ggml: hello"),
        ("engine_said", "gpu0", "and more"),
    ]
    assert words.last == "ggml: hello\nand more"


async def test_an_event_keeps_its_level_and_fields_and_gets_the_engines_name() -> None:
    event = {"level": "warning", "event": "model_refused", "model": "a", "engine": "not me"}

    words, logs = await heard(b"no end\x1e" + json.dumps(event).encode() + b"\n")

    assert logs == [
        {"log_level": "info", "event": "engine_said", "engine": "gpu0", "text": "no end"},
        {"log_level": "warning", "event": "model_refused", "model": "a", "engine": "gpu0"},
    ]
    assert words.last == "no end"


async def test_bytes_that_are_no_text_and_events_that_are_none_do_no_harm() -> None:
    _, logs = await heard(b"\xff\xfe\n", b'\x1e["a"]\n\x1e{"level": []}\n\x1e\n', b"\x1b[2Jend\x07")

    assert [line["event"] for line in logs] == ["engine_said"] * 3
    assert logs[-1]["text"] == " [2Jend "


async def test_a_line_without_end_is_cut_and_a_flood_is_dropped() -> None:
    _, logs = await heard(b"a" * 100_000, b"\n" + b"b\n" * 5000)

    lengths = [len(line["text"]) for line in logs if line["event"] == "engine_said"]
    assert max(lengths) <= MAX_LINE_BYTES
    assert len(lengths) <= 3 * MAX_LINES_PER_SECOND  # it may have lasted into another second


async def test_where_it_was_when_it_died_is_logged_and_no_last_words() -> None:
    words, logs = await heard(b"GGML_ASSERT\nFatal Python error: Aborted\n  File x line 3\n")

    assert words.last == "GGML_ASSERT\nFatal Python error: Aborted"
    assert len(logs) == 3


async def test_what_a_child_logs_is_heard_with_traceback_and_libraries_but_no_debug() -> None:
    code = """
import logging, structlog
from engines.process.words import log_to_parent
log_to_parent(logging.DEBUG)
structlog.get_logger().info("model_loaded", model="é", size=None, path=object)
logging.getLogger("library").warning("of %s", "a library")
logging.getLogger("library").debug("a prompt")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger().exception("step_failed")
"""
    ran = await asyncio.to_thread(
        lambda: subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    )

    _, logs = await heard(ran.stderr)

    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("model_loaded", "info"),
        ("of a library", "warning"),
        ("step_failed", "error"),
    ]
    assert (logs[0]["model"], logs[0]["path"]) == ("é", "<class 'object'>")
    assert "ZeroDivisionError" in logs[2]["exception"]


def test_a_traceback_of_a_child_is_printed_by_the_gateways_log() -> None:
    from gateway.logs import configure_logs

    stream = io.StringIO()
    configure_logs("info", "json", stream)
    words = Words("gpu0")
    words.data_received(b'\x1e{"event": "step_failed", "level": "error", "exception": "T"}\n')

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["exception"]) == ("step_failed", "error", "T")
