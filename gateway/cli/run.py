"""`penstock run MODEL`: an interactive conversation, or one question and its answer.

Talks to a running gateway; where none runs, to one that lives as long as the
command does. Either way the words travel the same road as every client's.
"""

import json
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.client import GatewayAnswered, GatewayClient
from gateway.cli.embedded import library_options, opened_client
from gateway.cli.interrupted import ending_with
from gateway.cli.quantities import is_duration

if TYPE_CHECKING:
    from gateway.cli.answering import Display
    from gateway.cli.conversation import Conversation

_THOUGHTS: dict[str, bool | str] = {"true": True, "false": False, "low": "low", "medium": "medium",
                                    "high": "high", "max": "max"}  # fmt: skip


class _RunCommand(click.Command):
    """`--think` alone means yes; with a word it wants `=`, or it would take the prompt's first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        whole = ["--think=true" if word == "--think" else word for word in args[:end]]
        return super().parse_args(ctx, whole + args[end:])


@click.command("run", cls=_RunCommand)
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--system", help="System message.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 is greedy.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer.")
@click.option("--format", "format_", help='"json", or a file with a JSON schema.')
@click.option("--think", type=click.Choice(list(_THOUGHTS)), help="Think first; --think=high.")
@click.option("--hidethinking", is_flag=True, help="Do not show what it thinks.")
@click.option("--keepalive", help="How long the model stays loaded: 10m, 0, -1 (for ever).")
@click.option("--verbose", is_flag=True, help="Show timings.")
@click.option("--nowordwrap", is_flag=True, help="Do not break lines between words.")
@click.option("--dimensions", type=click.IntRange(1), help="Of a vector (embedding models).")
@click.option(
    "--truncate/--no-truncate", default=None, help="Cut an input that is too long to embed."
)
@click.option("--insecure", is_flag=True, help="Pull over http, if the model is not there.")
@library_options
def command(  # noqa: PLR0913 - one parameter for each option
    model: str,
    prompt: tuple[str, ...],
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    format_: str | None,
    think: str | None,
    keepalive: str | None,
    dimensions: int | None,
    policy: Path | None,
    url: str | None,
    key: str | None,
    *,
    hidethinking: bool,
    verbose: bool,
    nowordwrap: bool,
    truncate: bool | None,
    insecure: bool,
) -> None:
    """Chat with MODEL, or ask it PROMPT and print the answer.

    PROMPT may also come from a pipe: `cat notes | penstock run starter "Sum it up:"`. A model
    that is not there is pulled first. Paths of pictures are sent to models that see.
    """
    from gateway.cli.answering import Display
    from gateway.cli.conversation import Conversation
    from gateway.cli.pictures import sees_pictures

    options = {"temperature": temperature, "num_predict": max_tokens}
    conversation = Conversation(
        model=model,
        system=system,
        options={name: value for name, value in options.items() if value is not None},
        format=_format(format_),
        think=None if think is None else _THOUGHTS[think],
        keep_alive=_keep_alive(keepalive),
    )
    display = Display(verbose=verbose, word_wrap=not nowordwrap, thinking=not hidethinking)
    question = _question(prompt)
    with opened_client(url, key, policy) as client, ending_with("stopped"):
        shown = _found_or_pulled(client, model, insecure=insecure)
        abilities: Sequence[str] = shown.get("capabilities") or ()
        if "embedding" in abilities and "completion" not in abilities:
            _embed(client, conversation, question, {"dimensions": dimensions, "truncate": truncate})
        elif question is not None:
            _ask_once(client, conversation, display, question, sees=sees_pictures(shown))
        else:
            _converse(client, conversation, display, shown)


def _question(prompt: tuple[str, ...]) -> str | None:
    """What was asked on the command line and through a pipe; None: nothing, so converse."""
    piped = _piped(waits=not prompt)
    if not prompt and piped is None:
        return None
    return " ".join(part for part in (piped, *prompt) if part)


def _piped(*, waits: bool) -> str | None:
    """What stands in a pipe or a file at standard input; None if nobody put one there."""
    if sys.stdin.isatty():
        return None
    if not waits:
        try:
            mode = Path("/dev/stdin").stat().st_mode if sys.stdin.fileno() == 0 else 0
        except (OSError, ValueError):  # no file at all, as in a test
            mode = stat.S_IFREG
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
            return None
    return sys.stdin.read().strip()


def _format(given: str | None) -> Any:
    if given is None or given == "json":
        return given
    try:
        return json.loads(Path(given).read_bytes())
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"--format {given} is neither json nor a file with a JSON schema: {error}"
        ) from None


def _keep_alive(given: str | None) -> str | float | None:
    if given is None:
        return None
    try:
        return float(given)  # seconds
    except ValueError:
        if is_duration(given):
            return given
    raise click.UsageError(f"--keepalive {given} is no duration: 10m, 1h30m, 0, -1 (for ever)")


def _found_or_pulled(client: GatewayClient, model: str, *, insecure: bool) -> dict[str, Any]:
    """What the gateway says of a model; it is pulled if it is not there and the caller may."""
    from gateway.cli.model_card import card_of
    from gateway.cli.pull import pull

    try:
        return card_of(client, model)
    except GatewayAnswered as missing:
        if missing.status != 404:
            raise
        try:
            pull(client, model, insecure=insecure)
        except GatewayAnswered:
            raise missing from None  # no library here, or not for this caller
        except click.ClickException as error:
            raise click.ClickException(
                f"{missing.said}, and it could not be pulled: {error.message}"
            ) from None
    return card_of(client, model)


def _ask_once(
    client: GatewayClient,
    conversation: "Conversation",
    display: "Display",
    question: str,
    *,
    sees: bool,
) -> None:
    from gateway.cli.answering import ask
    from gateway.cli.pictures import pictures_in

    if not question:
        client.post("/api/chat", conversation.load_body())  # as Ollama does it: `run MODEL ""`
        return
    text, images, _ = pictures_in(question) if sees else (question, [], [])
    ask(client, conversation, display, text, images)


def _converse(
    client: GatewayClient, conversation: "Conversation", display: "Display", shown: dict[str, Any]
) -> None:
    from rich.console import Console

    from gateway.cli.repl import converse
    from gateway.cli.waiting import Waiting

    with Waiting(Console(stderr=True, highlight=False), client):
        client.post("/api/chat", conversation.load_body())
    converse(client, conversation, display, shown)


def _embed(
    client: GatewayClient, conversation: "Conversation", text: str | None, options: dict[str, Any]
) -> None:
    if not text:
        raise click.UsageError(f"{conversation.model} makes vectors of texts: give it one")
    asked = {name: value for name, value in options.items() if value is not None}
    body = {"model": conversation.model, "input": text, **asked}
    if conversation.keep_alive is not None:
        body["keep_alive"] = conversation.keep_alive
    click.echo(json.dumps(client.post("/api/embed", body)["embeddings"][0]))
