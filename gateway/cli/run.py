"""`penstock run MODEL`: an interactive chat, or one question and its answer.

Talks to a running gateway; where none runs, to one that lives as long as the
command does. Either way the words travel the same road as every client's.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx

from gateway.cli.client import GatewayClient, client_options, default_url

HELP = """\
/clear      forget the conversation
/system …   set the system message
/set NAME VALUE   temperature, top_p, top_k, seed, max_tokens
/bye        leave (also Ctrl-D)
\"\"\"         begins and ends a message of several lines"""


@click.command("run")
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--system", help="System message.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 is greedy.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer.")
@click.option("--policy", type=click.Path(path_type=Path), help="Policy, if no gateway runs.")
@client_options
def command(  # noqa: PLR0913 - one parameter for each option
    model: str,
    prompt: tuple[str, ...],
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    policy: Path | None,
    url: str | None,
    key: str | None,
) -> None:
    """Chat with MODEL, or ask it PROMPT and print the answer.

    PROMPT may also come from a pipe: `cat notes | penstock run starter`.
    """
    options = {"temperature": temperature, "max_tokens": max_tokens}
    with _client(url, key, policy) as client:
        chat = _Chat(client, model, system, {k: v for k, v in options.items() if v is not None})
        question = " ".join(prompt) or _piped()
        if question:
            chat.ask(question)
        else:
            chat.talk()


def _piped() -> str:
    return "" if sys.stdin.isatty() else sys.stdin.read().strip()


@contextmanager
def _client(
    url: str | None, key: str | None, policy: Path | None
) -> Generator[GatewayClient, None, None]:
    """A client of the named or running gateway, or of one started for this command."""
    with GatewayClient(url or default_url(), key) as client:
        if url is not None or (policy is None and client.is_up()):
            yield client
            return
    with _embedded_gateway(policy) as own_url, GatewayClient(own_url, key) as client:
        yield client


@contextmanager
def _embedded_gateway(policy: Path | None) -> Generator[str, None, None]:
    """A gateway on a free loopback port, in a thread of this process."""
    import uvicorn

    from gateway.app import create_app
    from gateway.cli.serve import bound_socket, explained, settings_of, start_failure
    from gateway.logs import configure_logs

    settings = settings_of(policy=policy)
    configure_logs("error", settings.log_format)
    try:
        app = create_app(settings)
    except Exception as error:
        raise explained(error) from error
    listener = bound_socket("127.0.0.1", 0, only_this_port=True)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    ready = threading.Event()
    gateway = app.state.gateway
    gateway.on_ready.append(ready.set)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    def run() -> None:
        with contextlib.suppress(SystemExit):  # a failed start is told below
            server.run(sockets=[listener])

    thread = threading.Thread(target=run, name="gateway", daemon=True)
    thread.start()
    while not ready.wait(0.05):
        if not thread.is_alive():
            raise start_failure(gateway.failure or RuntimeError("the gateway did not start"))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


class _Chat:
    """One conversation on the terminal."""

    def __init__(
        self, client: GatewayClient, model: str, system: str | None, options: dict[str, Any]
    ) -> None:
        from rich.console import Console

        self._client = client
        self._model = model
        self._options = options
        self._messages: list[dict[str, str]] = []
        self._system = system
        self._console = Console(stderr=True, highlight=False)

    def ask(self, question: str) -> None:
        """Send one message and print the answer as it comes."""
        self._messages.append({"role": "user", "content": question})
        try:
            answer = self._stream()
        except BaseException:
            self._messages.pop()  # an answer that failed is not part of the conversation
            raise
        self._messages.append({"role": "assistant", "content": answer})

    def talk(self) -> None:
        """Read messages until the user leaves."""
        self._console.print(f"[dim]{self._model} at {self._client.url}; /? for help[/dim]")
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._obey(line):
                    return
            elif line.strip():
                self._ask_kindly(line)

    def _ask_kindly(self, line: str) -> None:
        try:
            self.ask(line)
        except click.ClickException as error:
            self._console.print(f"[red]{error.message}[/red]")
        except KeyboardInterrupt:
            self._console.print("\n[dim]stopped[/dim]")

    def _stream(self) -> str:
        body = {"model": self._model, "messages": self._conversation(), **self._options}
        pieces: list[str] = []
        with self._waiting() as arrived:
            for chunk in self._client.chat(body):
                for choice in chunk["choices"]:
                    text = choice["delta"].get("content") or ""
                    if text:
                        arrived()
                        click.echo(text, nl=False)
                        pieces.append(text)
        click.echo()
        return "".join(pieces)

    def _conversation(self) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *self._messages]

    @contextmanager
    def _waiting(self) -> Generator[Any, None, None]:
        """A progress line until the first word: how long, and what is being loaded."""
        if not self._console.is_terminal:
            yield lambda: None
            return
        shown = _Waiting(self._console, self._client)
        shown.start()
        try:
            yield shown.stop
        finally:
            shown.stop()

    def _read(self) -> str | None:
        try:
            line = input(">>> ")
            if not line.startswith('"""'):
                return line
            lines = [line[3:]]
            while not lines[-1].endswith('"""'):
                lines.append(input("... "))
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo()
            return ""
        return "\n".join(lines)[:-3]

    def _obey(self, line: str) -> bool:
        """Carry out a slash command; False when it means to leave."""
        word, _, rest = line.partition(" ")
        match word:
            case "/bye" | "/exit" | "/quit":
                return False
            case "/clear":
                self._messages.clear()
                self._console.print("[dim]forgotten[/dim]")
            case "/system":
                self._system = rest.strip() or None
            case "/set":
                self._set(rest)
            case "/?" | "/help":
                self._console.print(HELP, markup=False)
            case _:
                self._console.print(f"[red]there is no {word}; /? lists what there is[/red]")
        return True

    def _set(self, rest: str) -> None:
        name, _, value = rest.strip().partition(" ")
        kinds: dict[str, type] = {
            "temperature": float, "top_p": float, "top_k": int, "seed": int, "max_tokens": int,
        }  # fmt: skip
        try:
            self._options[name] = kinds[name](value)
        except KeyError:
            self._console.print(f"[red]{name!r} cannot be set; there are: {', '.join(kinds)}[/red]")
        except ValueError:
            self._console.print(f"[red]{value!r} is not a value of {name}[/red]")


class _Waiting:
    """A bar on the terminal while a model loads and reads the prompt."""

    def __init__(self, console: Any, client: GatewayClient) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("[dim]{task.description}[/dim]"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._client = client
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Show the bar after a moment; an answer that comes at once needs none."""
        self._thread.start()

    def stop(self) -> None:
        """Take the bar away."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()

    def _follow(self) -> None:
        if self._stopped.wait(0.3):
            return
        with self._progress:
            task = self._progress.add_task("waiting", total=None)
            since = time.monotonic()
            while not self._stopped.wait(0.2):
                loading = self._loading() if time.monotonic() - since > 0.2 else None
                if loading is None:
                    self._progress.update(task, description="thinking", total=None)
                else:
                    name, fraction = loading
                    self._progress.update(
                        task, description=f"loading {name}", total=1.0, completed=fraction
                    )

    def _loading(self) -> tuple[str, float] | None:
        """The model that is being loaded and how far it is, if the caller may know."""
        try:
            answer = httpx.get(f"{self._client.url}/admin/models", timeout=1.0)
            models: list[dict[str, Any]] = (
                answer.json()["models"] if answer.status_code == 200 else []
            )
        except (httpx.HTTPError, ValueError, KeyError):
            return None
        return next(
            ((m["name"], m["loading"]) for m in models if m.get("loading") is not None), None
        )
