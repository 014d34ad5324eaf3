"""Long stop strings are made ready beside the event loop, short ones at once."""

import threading

import pytest

from engines.chat.prepared import output_of
from engines.chat.template import ChatTemplate, Rendered
from engines.protocol import GenerateRequest, TextDelta


class Answers:
    """A model without a template, which notes the thread that asks for one."""

    constraints = None
    end_of_thinking = None
    end_ids = ()

    def __init__(self) -> None:
        self.asked_in: list[int] = []

    @property
    def template(self) -> ChatTemplate | None:
        self.asked_in.append(threading.get_ident())
        return None


@pytest.mark.parametrize(("stop", "inline"), [("END", True), ("ab" * 500, False)])
async def test_only_long_stop_strings_are_read_in_another_thread(
    stop: str, *, inline: bool
) -> None:
    request = GenerateRequest(id="1", model="m", prompt="x", stop=[stop])

    model = Answers()

    output = await output_of(model, request, Rendered("x", False))  # pyright: ignore[reportArgumentType]

    assert (model.asked_in == [threading.get_ident()]) is inline
    assert list(output.feed(f"x{stop}".encode())) == [TextDelta("x")]
    assert output.stopped == stop
