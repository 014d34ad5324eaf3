"""Prints tables for people: as wide as the terminal, and whole where there is none."""

from collections.abc import Sequence
from typing import Any

import click


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings; elsewhere than on a terminal no cell is ever cut."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(_table(headings, rows))
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a name is no markup
    return table
