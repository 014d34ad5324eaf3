"""What a line that begins with `/` does in a conversation."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import click

from gateway.cli.answering import Display
from gateway.cli.client import GatewayClient
from gateway.cli.conversation import Conversation
from gateway.cli.line_reader import PROMPT, LineReader
from gateway.cli.list_models import print_models
from gateway.cli.model_card import PARTS, card_of, part_of, print_card
from gateway.cli.modelfile import typed
from gateway.cli.pictures import sees_pictures

HELP = """\
/set NAME …     change the conversation; /? set lists what there is
/show PART      what the model is; /? show lists the parts
/load MODEL     talk to another model, from the beginning
/save MODEL     make a model that begins where this conversation is
/clear          forget what was said
/list           the models that there are
/bye            leave (also Ctrl-D)
/?              this; /? set, /? show, /? shortcuts

\"\"\"             begins and ends a message of several lines
PATH.png        a picture, for a model that sees (jpg, png, webp)"""
HELP_SET = """\
/set parameter NAME VALUE   temperature, top_p, top_k, min_p, seed, num_predict, num_ctx,
                            repeat_penalty, presence_penalty, frequency_penalty, stop, …
/set system TEXT            the system message; \"\"\" begins and ends one of several lines
/set format json            answers are JSON; /set noformat: anything
/set think [low|medium|high]   think first; /set nothink: do not
/set verbose                timings after each answer; /set quiet: none
/set wordwrap               break lines between words; /set nowordwrap: do not
/set history                keep lines for the arrow keys; /set nohistory: do not"""
HELP_SHOW = """\
/show info          what it is and can do
/show license       its licences
/show modelfile     a Modelfile that makes it
/show parameters    its parameters, and this conversation's
/show system        the system message
/show template      its prompt template"""
HELP_SHORTCUTS = """\
Ctrl-A, Ctrl-E      to the beginning, to the end of the line
Alt-B, Alt-F        a word back, a word on
Ctrl-U, Ctrl-K      delete what is before, what is after the cursor
Ctrl-W              delete the word before the cursor
Ctrl-L              clear the screen
Ctrl-R              look for a line that was typed before
Tab                 complete a command
Ctrl-C              stop the answer
Ctrl-D              leave"""
_HELPS: Mapping[str, str] = {"set": HELP_SET, "show": HELP_SHOW, "shortcuts": HELP_SHORTCUTS}
WORDS = ("/set", "/show", "/load", "/save", "/clear", "/list", "/bye", "/?")
_EFFORTS = ("low", "medium", "high", "max")


class SlashCommands:
    """The commands of one conversation. What cannot be done raises `ClickException`."""

    def __init__(
        self,
        client: GatewayClient,
        conversation: Conversation,
        display: Display,
        reader: LineReader,
        shown: dict[str, Any],
    ) -> None:
        self._client = client
        self._conversation = conversation
        self._display = display
        self._reader = reader
        self._shown = shown  # what `/api/show` says of the model; empty where it may not be asked

    @property
    def sees(self) -> bool:
        """Can the model see pictures, as far as is known?"""
        return sees_pictures(self._shown)

    def obey(self, line: str) -> bool:
        """Carry out a command; False when it means to leave."""
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        done: Mapping[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
            "/clear": self._clear,
            "/list": self._list,
            "/?": _help,
            "/help": _help,
        }
        if word in ("/bye", "/exit", "/quit"):
            return False
        if word not in done:
            raise click.ClickException(f"there is no {word}; /? lists what there is")
        done[word](rest)
        return True

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        value = value.strip()
        switches: Mapping[str, Callable[[], str]] = {
            "verbose": lambda: self._change("verbose", on=True, said="timings are shown"),
            "quiet": lambda: self._change("verbose", on=False, said="timings are not shown"),
            "wordwrap": lambda: self._change("word_wrap", on=True, said="lines are wrapped"),
            "nowordwrap": lambda: self._change("word_wrap", on=False, said="lines are not wrapped"),
            "history": lambda: self._keep_history(kept=True),
            "nohistory": lambda: self._keep_history(kept=False),
            "noformat": lambda: self._set_format(None),
            "nothink": lambda: self._set_think(think=False),
        }
        match name:
            case "parameter":
                self._set_parameter(value)
            case "system":
                self._conversation.system = value or None
                _say("system message set" if value else "no system message")
            case "format" if value == "json":
                _say(self._set_format("json"))
            case "format":
                raise click.ClickException("formats are: json")
            case "think" if value and value not in _EFFORTS:
                raise click.ClickException(f"/set think takes nothing, {', '.join(_EFFORTS)}")
            case "think":
                _say(self._set_think(think=value or True))
            case _ if name in switches:
                _say(switches[name]())
            case _:
                raise click.ClickException(f"{name!r} cannot be set\n{HELP_SET}")

    def _set_parameter(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        text = text.strip()
        if not name or not text:
            raise click.ClickException("/set parameter NAME VALUE, such as: temperature 0.2")
        self._conversation.options[name] = _texts(text) if name == "stop" else typed(text)
        _say(f"{name} is {text}")

    def _set_format(self, format: str | None) -> str:
        self._conversation.format = format
        return "answers are JSON" if format else "answers are text"

    def _set_think(self, *, think: bool | str) -> str:
        self._conversation.think = think
        return "it thinks first" if think else "it does not think first"

    def _change(self, field: str, *, on: bool, said: str) -> str:
        setattr(self._display, field, on)
        return said

    def _keep_history(self, *, kept: bool) -> str:
        self._reader.keep_history(kept=kept)
        return "lines are kept" if kept else "lines are not kept"

    def _show(self, part: str) -> None:
        conversation = self._conversation
        if part not in ("info", *PARTS):
            raise click.ClickException(f"/show takes a part\n{HELP_SHOW}")
        if part == "parameters" and conversation.options:
            click.echo("  of this conversation")
            for name, value in conversation.options.items():
                click.echo(f"    {name}    {value}")
            click.echo("  of the model")
        if part == "system" and conversation.system is not None:
            click.echo(conversation.system)
            return
        shown = self._shown or self._client.post("/api/show", {"model": conversation.model})
        if part == "info":
            print_card(shown)
        elif text := part_of(shown, part):
            click.echo(text)
        else:
            click.echo(f"{conversation.model} has no {PARTS[part]}", err=True)

    def _load(self, model: str) -> None:
        if not model:
            raise click.ClickException("/load MODEL; /list shows what there is")
        other = Conversation(
            model=model, keep_alive=self._conversation.keep_alive, think=self._conversation.think
        )
        shown = card_of(self._client, model)
        self._client.post("/api/chat", other.load_body())
        self._shown = shown
        other.begun = shown.get("messages") or ()
        for field in other.__struct_fields__:
            setattr(self._conversation, field, getattr(other, field))
        _say(f"this is {model}")
        print_begun(self._conversation)

    def _save(self, name: str) -> None:
        if not name:
            raise click.ClickException("/save MODEL needs a name for it")
        status = None
        body = {**self._conversation.save_body(name), "stream": True}
        for step in self._client.stream("/api/create", body):
            status = step.get("status")
        if status != "success":
            raise click.ClickException(f"saving broke off at {status!r}")
        _say(f"saved as {name}; `penstock run {name}` goes on from here")

    def _clear(self, _: str) -> None:
        self._conversation.messages.clear()
        _say("forgotten")

    def _list(self, _: str) -> None:
        print_models(self._client.get("/api/tags")["models"])


def print_begun(conversation: Conversation) -> None:
    """Show what was said before this conversation began: the MESSAGEs of the model."""
    for message in conversation.begun:
        if message["role"] != "system":
            prompt = PROMPT if message["role"] == "user" else ""
            click.echo(f"{prompt}{message['content']}")


def _texts(text: str) -> list[str]:
    """Several texts; one with spaces in it stands in quotes."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise click.ClickException(f"{text}: {str(error).lower()}") from None


def _help(topic: str) -> None:
    click.echo(_HELPS.get(topic.removeprefix("/"), HELP))


def _say(words: str) -> None:
    click.secho(words, err=True, dim=True)
