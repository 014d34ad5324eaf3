"""Breaks a text that comes in pieces between words, at the width of a terminal."""

from rich.cells import cell_len


class WordWrap:
    """Knows the column of what was printed.

    Every character is printed at once. A word that turns out not to fit is taken back
    from the end of its line and printed again on the next.
    """

    def __init__(self, columns: int) -> None:
        # The last column stays free: where the cursor is after it differs between terminals.
        self._width = max(columns, 10) - 1
        self._column = 0
        self._word = ""
        self._word_cells = 0

    def add(self, text: str) -> str:
        """More text; what to print for it."""
        return "".join(map(self._placed, text))

    def _placed(self, character: str) -> str:
        if character == "\n":
            return self._next_line("")
        cells = cell_len(character)
        if character.isspace() or cells > 1:
            # Scripts with wide characters have no spaces: a line of them ends anywhere.
            self._begin_word("")
            if self._column + max(cells, 1) > self._width:
                return self._next_line("" if character.isspace() else character)
            self._column += max(cells, 1)
            return character
        if self._column + cells <= self._width:
            self._begin_word(self._word + character)
            self._column += cells
            return character
        if self._column == self._word_cells:  # the word alone is longer than a line
            return self._next_line(character)
        taken_back = f"\x1b[{self._word_cells}D\x1b[K" if self._word_cells else ""
        return taken_back + self._next_line(self._word + character)

    def _next_line(self, begun_with: str) -> str:
        self._begin_word(begun_with)
        self._column = self._word_cells
        return f"\n{begun_with}"

    def _begin_word(self, word: str) -> None:
        self._word, self._word_cells = word, cell_len(word)
