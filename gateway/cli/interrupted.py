"""What Ctrl-C means to a command that works for a while: an end with a few words."""

from collections.abc import Generator
from contextlib import contextmanager

import click

EXIT_STATUS = 130  # what a shell gives for a program that SIGINT ended


@contextmanager
def ending_with(words: str) -> Generator[None, None, None]:
    """Say `words` where Ctrl-C ends what is done within."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\n{words}", err=True)
        raise click.exceptions.Exit(EXIT_STATUS) from None
