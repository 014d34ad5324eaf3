"""Ends an answer at a stop string, across any chunk borders.

A match is decided as if the text came one character at a time: the stop string
that is complete first wins, and of two that are complete at the same character
the longer one. So the answer is the same however the text was cut into chunks.
"""

from collections import deque
from collections.abc import Iterable


class StopStrings:
    """Lets text through up to the first stop string; one answer, one owner, not shared.

    Text that may still become a stop string is held back: always the longest
    suffix that is a prefix of one, and never more. The strings form one
    automaton (Aho-Corasick), so a character costs the same for one stop string
    as for a hundred, and nothing is ever scanned twice.
    """

    __slots__ = ("_depths", "_fallbacks", "_held", "_matches", "_starts", "_state", "_steps")

    def __init__(self, stops: Iterable[str]) -> None:
        self._steps: list[dict[str, int]] = [{}]
        self._depths = [0]
        self._matches: list[str | None] = [None]
        self._fallbacks = [0]
        for stop in stops:
            if stop:
                self._add(stop)
        self._link()
        self._starts = frozenset(self._steps[0])
        self._state = 0
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Return the text that is safe to send, and the stop string that ended it, if one did.

        After a match the matcher is empty again; what followed the stop string is dropped.
        """
        state = self._state
        if not state and self._starts.isdisjoint(text):
            return text, None
        steps, fallbacks = self._steps, self._fallbacks
        for at, character in enumerate(text, 1):
            while (following := steps[state].get(character)) is None and state:
                state = fallbacks[state]
            state = following or 0
            matched = self._matches[state]
            if matched is not None:
                whole = self._held + text[:at]
                self._state, self._held = 0, ""
                return whole[: len(whole) - len(matched)], matched
        self._state = state
        whole = self._held + text
        safe = len(whole) - self._depths[state]
        self._held = whole[safe:]
        return whole[:safe], None

    def flush(self) -> str:
        """Return what was held back: no more text will come to make it a stop string."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._steps[state].get(character)
            if following is None:
                following = len(self._steps)
                self._steps[state][character] = following
                self._steps.append({})
                self._depths.append(self._depths[state] + 1)
                self._matches.append(None)
                self._fallbacks.append(0)
            state = following
        self._matches[state] = stop

    def _link(self) -> None:
        """Point each state to the longest other state that ends with the same text."""
        waiting = deque(self._steps[0].values())
        while waiting:
            state = waiting.popleft()
            for character, following in self._steps[state].items():
                fallback = self._fallbacks[state]
                while fallback and character not in self._steps[fallback]:
                    fallback = self._fallbacks[fallback]
                fallback = self._steps[fallback].get(character, 0)
                self._fallbacks[following] = fallback
                if self._matches[following] is None:
                    self._matches[following] = self._matches[fallback]
                waiting.append(following)
