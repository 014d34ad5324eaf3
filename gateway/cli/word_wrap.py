"""Breaks a text that comes in pieces between words, at the width of a terminal."""

from rich.cells import cell_len


class WordWrap:
    """Knows the column of what was printed; holds the last word back until it is whole."""

    def __init__(self, width: int) -> None:
        self._width = max(width, 10)
        self._column = 0
        self._word = ""

    def add(self, text: str) -> str:
        """More text; what of it can be printed now."""
        out: list[str] = []
        for character in text:
            if character == "\n":
                out += [self._placed(), "\n"]
                self._column = 0
            elif character.isspace():
                out += [self._placed(), self._space(character)]
            elif cell_len(character) > 1:  # such scripts have no spaces: a line ends anywhere
                self._word += character
                out.append(self._placed())
            else:
                self._word += character
                if cell_len(self._word) >= self._width:
                    out.append(self._placed())
        return "".join(out)

    def end(self) -> str:
        """What was held back."""
        return self._placed()

    def _placed(self) -> str:
        """The word that was held back, on a new line if this one has no room for it."""
        word, self._word = self._word, ""
        size = cell_len(word)
        line_break = "\n" if self._column and self._column + size > self._width else ""
        self._column = size if line_break else self._column + size
        return line_break + word

    def _space(self, character: str) -> str:
        if self._column >= self._width:
            return ""  # the next word begins a line by itself
        self._column += 1
        return character
