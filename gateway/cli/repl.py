"""A conversation at the terminal: reads messages and commands until somebody leaves."""

import os
from pathlib import Path
from typing import Any

import click

from gateway.cli.answering import Display, ask
from gateway.cli.client import GatewayClient
from gateway.cli.conversation import Conversation
from gateway.cli.line_reader import LineReader
from gateway.cli.pictures import pictures_in
from gateway.cli.slash_commands import WORDS, SlashCommands, print_begun
from gateway.ollama_variables import is_true


def converse(
    client: GatewayClient, conversation: Conversation, display: Display, shown: dict[str, Any]
) -> None:
    """Talk until Ctrl-D or /bye. Ctrl-C stops an answer, and nothing else."""
    conversation.begun = shown.get("messages") or ()
    reader = LineReader(_history_file(), WORDS)
    commands = SlashCommands(client, conversation, display, reader, shown)
    _say(f"{conversation.model} at {client.url}; /? for help")
    print_begun(conversation)
    if is_true(os.environ.get("OLLAMA_NOHISTORY", "")):
        reader.keep_history(kept=False)
    try:
        while (message := _read(reader)) is not None:
            if not _take(message, client, conversation, display, commands):
                return
    finally:
        reader.close()


def _read(reader: LineReader) -> str | None:
    """The next message, empty for one that was broken off; None to leave."""
    try:
        return reader.read()
    except EOFError:
        click.echo()
        return None
    except KeyboardInterrupt:
        _say("\nCtrl-D or /bye to leave")
        return ""


def _take(
    message: str,
    client: GatewayClient,
    conversation: Conversation,
    display: Display,
    commands: SlashCommands,
) -> bool:
    """Do what a message wants; False when it means to leave. Nothing that fails ends it all."""
    try:
        if _is_command(message):
            return commands.obey(message)
        if message.strip():
            _answer(message, client, conversation, display, sees=commands.sees)
    except click.ClickException as error:
        click.secho(error.message, err=True, fg="red")
    except KeyboardInterrupt:
        _say("\nstopped")
    return True


def _answer(
    message: str,
    client: GatewayClient,
    conversation: Conversation,
    display: Display,
    *,
    sees: bool,
) -> None:
    question, images, paths = pictures_in(message)
    if images and not sees:
        _say(f"{conversation.model} sees no pictures: what you typed stays text")
        question, images, paths = message, [], []
    for path in paths:
        _say(f"added {path.name}")
    ask(client, conversation, display, question, images)


def _is_command(message: str) -> bool:
    """Does a message begin with a command? A path of a picture begins with a slash, too."""
    word = message.split(maxsplit=1)[0] if message.strip() else ""
    return message.startswith("/") and "/" not in word[1:]


def _history_file() -> Path | None:
    from gateway.settings import SettingsInvalid, read_settings

    try:
        return read_settings().data_dir / "history"
    except SettingsInvalid:
        return None


def _say(words: str) -> None:
    click.secho(words, err=True, dim=True)
