"""Finds tool calls in what a model writes, while it is still writing.

Three families write them in their own way (tool_format.py). In each, a call is
a JSON object or a name followed by one. As soon as name and opening bracket are
there, the call is announced, and its arguments are passed on as they come, as
the model wrote them. An object with its keys in another order is waited for.

Only a name among the request's tools makes a call. What turns out not to be one
comes out as the text that it is; nothing is lost but the head of a call that the
limit of tokens has cut off. Each character is looked at a
bounded number of times, whatever the text and however it is cut.
"""

import re
import secrets
import string
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from engines.chat.call_object import (
    MAX_HEADER,
    begins_with_name,
    is_decided,
    may_be_call,
    read_call,
    read_header,
)
from engines.chat.json_scan import JsonScan
from engines.chat.markup import (
    MAX_BLANKS,
    Kind,
    Piece,
    beginning_of,
    blanks_after,
    blanks_before,
)
from engines.chat.tool_format import ToolFormat
from engines.protocol import ToolCallDelta

_MARKERS = {
    ToolFormat.HERMES: "<tool_call>",
    ToolFormat.LLAMA3_JSON: "<|python_tag|>",
    ToolFormat.MISTRAL: "[TOOL_CALLS]",
}
_CLOSE = "</tool_call>"
_MISTRAL_NAME = re.compile(r"([\w.\-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")
_MISTRAL_NAME_SO_FAR = re.compile(r"[\w.\-]+(?:\[[\w\]\[]*)?\s*")
_ID_LETTERS = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Make an id as OpenAI's look: `call_` and 24 letters and digits."""
    return "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(24))


class _State(Enum):
    START = auto()  # nothing but blanks so far
    TEXT = auto()
    OPENED = auto()  # after a marker or a separator: a call must follow
    HEADER = auto()  # in a call's object, before its arguments
    WAITING = auto()  # for all of an object whose header is unusual
    ARGUMENTS = auto()
    TAIL = auto()  # in the rest of the object, after the arguments
    AFTER = auto()  # after a call
    BETWEEN = auto()  # after a call and what closes it
    DONE = auto()  # one call was all that is allowed


_IN_HEAD = {_State.OPENED, _State.HEADER, _State.WAITING}


class ToolCallParser:
    """Sorts one answer into text and tool calls, as it comes.

    `_text` from `_at` on is what is not decided; `_lead` is what came before it
    and shares its fate: the marker, if it belongs to a call, or else text.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        names: Collection[str],
        *,
        parallel: bool = True,
        forced: bool = False,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        """Look for calls of the tools in `names`; for one call only, unless `parallel`.

        `forced`: the answer is nothing but calls.
        """
        self.num_calls = 0
        self._format = tool_format
        self._marker = _MARKERS[tool_format]
        self._names = frozenset(names)
        self._parallel = parallel
        self._forced = forced
        self._new_id = new_id
        self._state = _State.START if tool_format is ToolFormat.LLAMA3_JSON else _State.TEXT
        self._text = ""
        self._at = 0
        self._lead = ""
        self._scan = JsonScan()
        self._waiting: list[str] = []
        self._is_in_list = False
        self._has_object = True  # around the arguments: not in Mistral's newer form
        self._pieces: list[Piece] = []
        self._steps = {
            _State.START: self._start,
            _State.TEXT: self._find_marker,
            _State.OPENED: self._find_call,
            _State.HEADER: self._find_arguments,
            _State.WAITING: self._wait_for_object,
            _State.ARGUMENTS: self._pass_arguments,
            _State.TAIL: self._skip_tail,
            _State.AFTER: self._after_call,
            _State.BETWEEN: self._between_calls,
            _State.DONE: self._drop,
        }

    @property
    def is_done(self) -> bool:
        """The one call that was allowed is complete; whatever follows is dropped."""
        return self._state is _State.DONE

    def feed(self, text: str) -> Sequence[Piece]:
        """Return the pieces that are decided now."""
        self._text = self._text[self._at :] + text
        self._at = 0
        self._pieces = pieces = list[Piece]()
        while self._at < len(self._text):
            before = self._state, self._at, len(self._text)
            self._steps[self._state]()
            if before == (self._state, self._at, len(self._text)):
                break
        return pieces

    def flush(self, *, is_cut: bool = False) -> Sequence[Piece]:
        """Return what was held back: no more text will come to make it a call.

        Where the answer `is_cut`, a call whose head is not complete is no text for anybody.
        """
        held = self._lead + "".join(self._waiting) + self._text[self._at :]
        is_markup = self._state is _State.AFTER or self._state is _State.BETWEEN
        is_markup = is_markup or (is_cut and self._is_head(held))
        self._lead = self._text = ""
        self._at = 0
        self._waiting.clear()
        if not held:
            return ()
        return (Piece(Kind.MARKUP if is_markup else Kind.TEXT, held),)

    def _is_head(self, held: str) -> bool:
        """See whether what is held is the beginning of a call, rather than of a text."""
        if self._forced:
            return True
        if self._state in _IN_HEAD:
            return self._marker in self._lead or self.num_calls > 0 or begins_with_name(held)
        # A single `<` is more often a text's; half of a marker is no coincidence.
        return 2 * beginning_of(self._marker, held, 0) >= len(self._marker)

    def _start(self) -> None:
        """See whether the answer is nothing but calls, which Llama writes without a marker."""
        at = blanks_after(self._text, self._at)
        if at == len(self._text) and at - self._at <= MAX_BLANKS:
            return
        if at - self._at <= MAX_BLANKS and self._text.startswith("{", at):
            self._take_lead(at, _State.HEADER)
        else:
            self._state = _State.TEXT

    def _find_marker(self) -> None:
        found = self._text.find(self._marker, self._at)
        if found < 0:
            end = len(self._text) - beginning_of(self._marker, self._text, self._at)
            self._release(Kind.TEXT, blanks_before(self._text, end, self._at))
            return
        self._release(Kind.TEXT, blanks_before(self._text, found, self._at))
        self._take_lead(found + len(self._marker), _State.OPENED)

    def _find_call(self) -> None:
        text, at = self._text, blanks_after(self._text, self._at)
        if at - self._at > MAX_BLANKS:
            self._give_up()
        elif at == len(text):
            pass
        elif text[at] == "{":
            self._take_lead(at, _State.HEADER)
        elif self._format is ToolFormat.LLAMA3_JSON and self._marker.startswith(
            text[at : at + len(self._marker)]
        ):
            if len(text) - at >= len(self._marker):
                self._take_lead(at + len(self._marker), _State.OPENED)
        elif self._format is not ToolFormat.MISTRAL or self._is_in_list:
            self._give_up()
        elif text[at] == "[":
            self._is_in_list = True
            self._take_lead(at + 1, _State.OPENED)
        else:
            self._find_name(at)

    def _find_name(self, at: int) -> None:
        """See whether this is Mistral's newer form: a name, and its arguments behind it."""
        end = at + MAX_HEADER
        found = _MISTRAL_NAME.match(self._text, at, end + 1)
        if found is not None and found[1] in self._names:
            self._take_lead(found.end(), _State.ARGUMENTS)
            self._has_object = False
            self._announce(found[1])
            return
        may_go_on = not found and len(self._text) <= end
        if not may_go_on or not _MISTRAL_NAME_SO_FAR.fullmatch(self._text, at):
            self._give_up()

    def _find_arguments(self) -> None:
        text, at = self._text, self._at
        found = read_header(text, at)
        if found is not None and found[0] in self._names:
            self._take_lead(found[1], _State.ARGUMENTS)
            self._has_object = True
            self._announce(found[0])
        elif not may_be_call(text, at, self._names):
            self._give_up()
        elif len(text) - at > MAX_HEADER or is_decided(text, at):
            self._state = _State.WAITING
            self._scan = JsonScan()

    def _wait_for_object(self) -> None:
        end = self._scan.feed(self._text, self._at)
        self._waiting.append(self._text[self._at : end])
        self._at = end
        if not self._scan.is_done and not self._scan.is_broken:
            return
        whole = "".join(self._waiting)
        self._waiting.clear()
        call = read_call(whole) if self._scan.is_done else None
        if call is None or call[0] not in self._names:
            # Once more from the beginning, as text: there may be a marker inside.
            self._text = whole + self._text[self._at :]
            self._at = 0
            self._give_up()
            return
        self._lead += whole
        self._announce(call[0])
        self._pieces.append(Piece(Kind.TOOL_CALL, "", self._delta(call[1])))
        self._end_call()

    def _pass_arguments(self) -> None:
        end = self._scan.feed(self._text, self._at)
        fragment = self._text[self._at : end]
        if fragment:
            self._pieces.append(Piece(Kind.TOOL_CALL, fragment, self._delta(fragment)))
        self._at = end
        if self._scan.is_broken:
            self._state = _State.TEXT
        elif self._scan.is_done and self._has_object:
            self._state = _State.TAIL
            self._scan = JsonScan(inside_object=True)
        elif self._scan.is_done:
            self._end_call()

    def _skip_tail(self) -> None:
        self._release(Kind.MARKUP, self._scan.feed(self._text, self._at))
        if self._scan.is_done or self._scan.is_broken:
            self._end_call()

    def _after_call(self) -> None:
        """Look for what closes a call, or for what announces that one more follows."""
        self._release(Kind.MARKUP, blanks_after(self._text, self._at))
        rest = self._text[self._at : self._at + len(_CLOSE)]
        if not rest:
            return
        if self._format is ToolFormat.HERMES:
            if rest == _CLOSE:
                self._release(Kind.MARKUP, self._at + len(_CLOSE))
            elif _CLOSE.startswith(rest):
                return
            self._state = _State.BETWEEN
        elif self._format is ToolFormat.LLAMA3_JSON and rest[0] in ";,":
            self._take_lead(self._at + 1, _State.OPENED)
        elif self._format is ToolFormat.LLAMA3_JSON and rest[0] == "{":
            self._state = _State.HEADER
        elif self._is_in_list and rest[0] == ",":
            self._take_lead(self._at + 1, _State.OPENED)
        else:
            if self._is_in_list and rest[0] == "]":
                self._release(Kind.MARKUP, self._at + 1)
            self._is_in_list = False
            self._state = _State.BETWEEN

    def _between_calls(self) -> None:
        """Blanks are text if text follows, and markup if nothing does, or one more call."""
        at = blanks_after(self._text, self._at)
        if at < len(self._text) or at - self._at > MAX_BLANKS:
            self._state = _State.TEXT

    def _drop(self) -> None:
        self._release(Kind.MARKUP, len(self._text))

    def _take_lead(self, end: int, state: _State) -> None:
        self._lead += self._text[self._at : end]
        self._at = end
        self._state = state

    def _give_up(self) -> None:
        """It was no call: what led to it is text, and what follows is looked at as text."""
        if self._lead:
            self._pieces.append(Piece(Kind.TEXT, self._lead))
        self._lead = ""
        self._is_in_list = False
        self._state = _State.TEXT

    def _release(self, kind: Kind, end: int) -> None:
        if end > self._at:
            self._pieces.append(Piece(kind, self._text[self._at : end]))
            self._at = end

    def _announce(self, name: str) -> None:
        self._pieces.append(Piece(Kind.MARKUP, self._lead))
        self._lead = ""
        delta = ToolCallDelta(index=self.num_calls, id=self._new_id(), name=name)
        self._pieces.append(Piece(Kind.TOOL_CALL, "", delta))
        self.num_calls += 1
        self._scan = JsonScan()

    def _delta(self, arguments: str) -> ToolCallDelta:
        return ToolCallDelta(index=self.num_calls - 1, arguments=arguments)

    def _end_call(self) -> None:
        self._state = _State.AFTER if self._parallel else _State.DONE
