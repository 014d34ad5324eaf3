"""`penstock parity`: does a model answer alike under two policies, or behind two URLs?

Exits with 1 if answers differ beyond what was asked, and with 2 if they cannot
be compared: a policy that does not hold, a model that is not there.
"""

import asyncio
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from gateway.parity.asking import Told
    from gateway.parity.prompt_set import Prompt
    from gateway.parity.report import Report
    from gateway.parity.side import Side


_FILE_WIDTH = 200


class NotComparable(click.ClickException):
    """The exit status tells it from a difference."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, by the names of its options."""

    places: tuple[str, ...]
    keys: tuple[str, ...]
    prompts: Path | None
    only: tuple[str, ...]
    skip: tuple[str, ...]
    require: tuple[str, ...]
    near_tie: float
    near_ties_agree: bool
    cosine: float
    max_tokens: int
    timeout: float
    at_once: int
    no_logprobs: bool
    json_file: str | None
    verbose: bool


@click.command("parity")
@click.argument("model")
@click.option(
    "--policy",
    "--url",
    "places",
    multiple=True,
    metavar="DIR|URL[#MODEL]",
    help="Policy directory, or base URL of any OpenAI-compatible server; the first is the "
    "reference. With #MODEL it is asked for that name instead.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    envvar=["PENSTOCK_API_KEY", "OPENAI_API_KEY"],
    help="API key: one for each URL, in order; - is none.  [env: PENSTOCK_API_KEY, OPENAI_API_KEY]",
)
@click.option("--prompts", type=click.Path(path_type=Path), help="JSON-lines file of your own.")
@click.option("--only", multiple=True, metavar="GLOB", help="Prompts of these names alone.")
@click.option("--skip", multiple=True, metavar="GLOB", help="No prompts of these names.")
@click.option(
    "--require",
    multiple=True,
    metavar="ASPECT=SHARE,…",
    help="Least share of prompts that must agree, as in text=0.9; all=SHARE sets every aspect.",
)
@click.option(
    "--near-tie", default=0.1, show_default=True, help="A lead up to so many nats is none."
)
@click.option("--near-ties-agree", is_flag=True, help="Texts that part at a near-tie agree.")
@click.option("--cosine", default=0.99, show_default=True, help="From which embeddings agree.")
@click.option("--max-tokens", default=128, show_default=True, help="Length of an answer.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds for one answer.")
@click.option("--at-once", type=click.IntRange(1), default=1, show_default=True, help="Callers.")
@click.option("--no-logprobs", is_flag=True, help="Ask for none; near-ties are not told then.")
@click.option("--json", "json_file", metavar="FILE", help="Write all that was found; - prints it.")
@click.option("--verbose", "-v", is_flag=True, help="Show every prompt and answer, token by token.")
@click.pass_context
def command(context: click.Context, model: str, **given: Any) -> None:
    """Ask MODEL the same in several places, greedily, and compare the answers.

    For example: penstock parity starter --policy policies/dev --policy policies/prod
    """
    from gateway.parity.problems import CannotCompare

    options = Options(**given)
    if len(options.places) < 2:
        raise click.UsageError("name at least two places with --policy or --url, reference first")
    if context.get_parameter_source("keys") is ParameterSource.ENVIRONMENT:
        # The environment's key is for one server; nobody said that the others may see it.
        options = replace(options, keys=options.keys[:1] if _num_urls(options) == 1 else ())
    try:
        report = _compared(model, options)
    except CannotCompare as error:
        raise NotComparable(str(error)) from None
    _show(report, options)
    if not report.holds:
        raise SystemExit(1)


def _compared(model: str, options: Options) -> "Report":
    from gateway.cli.serve import SWITCH_INTERVAL_SECONDS
    from gateway.logs import configure_logs
    from gateway.parity.asking import ask_all
    from gateway.parity.compare import Tolerance
    from gateway.parity.report import report_of
    from gateway.parity.requirements import requirements_of
    from gateway.parity.side import Manner

    requirements = requirements_of(options.require)
    prompts = _prompts(options)
    configure_logs("error", "auto")
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)  # as `penstock serve` does: speeds are shown
    manner = Manner(
        max_tokens=options.max_tokens,
        logprobs=not options.no_logprobs,
        timeout_seconds=options.timeout,
    )
    with TemporaryDirectory(prefix="penstock-parity-") as scratch, _progress(len(prompts)) as tell:
        sides = _sides(model, options, Path(scratch))
        heard = asyncio.run(ask_all(sides, prompts, manner, at_once=options.at_once, tell=tell))
    tolerance = Tolerance(
        near_tie_nats=options.near_tie,
        near_ties_agree=options.near_ties_agree,
        cosine=options.cosine,
    )
    return report_of(prompts, heard, requirements, tolerance)


def _prompts(options: Options) -> "list[Prompt]":
    from gateway.parity.problems import CannotCompare
    from gateway.parity.prompt_set import read_prompts, shipped_prompts

    prompts = read_prompts(options.prompts) if options.prompts else shipped_prompts()
    chosen = [
        prompt
        for prompt in prompts
        if (not options.only or _fits(prompt.name, options.only))
        and not _fits(prompt.name, options.skip)
    ]
    if not chosen:
        names = ", ".join(prompt.name for prompt in prompts)
        raise CannotCompare(f"--only and --skip leave no prompt (there are: {names})")
    return chosen


def _fits(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _sides(model: str, options: Options, scratch: Path) -> "list[Side]":
    from gateway.parity.policy_side import PolicySide
    from gateway.parity.url_side import UrlSide

    keys = iter(_keys(options))
    sides: list[Side] = []
    for given in options.places:
        place, _, name = given.partition("#")
        if _is_url(place):
            sides.append(UrlSide(place, name or model, name=place, key=next(keys)))
        else:
            own = scratch / str(len(sides))
            own.mkdir(mode=0o700)
            sides.append(PolicySide(Path(place), name or model, name=place, scratch=own))
    return sides


def _keys(options: Options) -> list[str | None]:
    """A key for each URL, or None. Raises `UsageError` where it is not clear which is whose."""
    num_urls = _num_urls(options)
    if not options.keys:
        return [None] * num_urls
    if len(options.keys) != num_urls:
        raise click.UsageError(
            f"there are {len(options.keys)} keys for {num_urls} URLs; give one --key for each "
            "URL, in order, and - where none is needed"
        )
    return [None if key == "-" else key for key in options.keys]


def _num_urls(options: Options) -> int:
    return sum(map(_is_url, options.places))


def _is_url(place: str) -> bool:
    return "://" in place


@contextmanager
def _progress(num_prompts: int) -> "Generator[Told, None, None]":
    """One line on the terminal while answers come; nothing where nobody looks."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _name, _num_answered: None
        return
    with console.status("") as status:
        yield lambda name, num: status.update(Text(f"{name}: {num} of {num_prompts} answered"))


def _show(report: "Report", options: Options) -> None:
    from rich.console import Console

    from gateway.parity.printing import print_report
    from gateway.parity.report import to_json

    if options.json_file == "-":
        click.echo(to_json(report), nl=False)
        return
    if options.json_file is not None:
        try:
            Path(options.json_file).write_bytes(to_json(report))
        except OSError as error:
            raise NotComparable(f"{options.json_file}: {error.strerror or error}") from None
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _FILE_WIDTH  # a table in a log is not to be cut
    print_report(report, console, verbose=options.verbose)
