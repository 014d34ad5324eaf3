"""The options of `penstock bench`; `gateway/cli/bench_plan.py` has what they become."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

WORKLOADS = ("fixed", "sharegpt", "shared-prefix", "nano")
DEFAULT_AT_ONCE: Mapping[str, str] = {"nano": "256", "shared-prefix": "4,16"}
FILE = click.Path(path_type=Path, dir_okay=False)
COUNT = click.IntRange(1)


def _together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


where = _together(
    click.option("--url", "urls", multiple=True, help="Base URL; repeat it to compare servers."),
    click.option("--vs", help="A second server, asked in turn; prints the ratio."),
    click.option("--vs-model", help="The model's name there.  [default: MODEL]"),
    click.option("--key", envvar=["PENSTOCK_API_KEY", "OPENAI_API_KEY"], help="API key."),
    click.option("--vs-key", envvar="PENSTOCK_VS_KEY", help="API key there.  [default: --key]"),
    click.option("--endpoint", type=click.Choice(["chat", "completions"]), help="What to call."),
    click.option("--engine", help="Measure this engine of --policy in this process, without HTTP."),
    click.option("--policy", type=click.Path(path_type=Path), help="Its directory, for --engine."),
    click.option("--extra", default="{}", help="JSON object to add to bodies; null removes."),
    click.option("--timeout", type=click.FloatRange(0, min_open=True), default=600.0,
                 show_default=True, help="Seconds that one answer may take."),
)  # fmt: skip
what = _together(
    click.option("--workload", type=click.Choice(WORKLOADS), default="fixed", show_default=True),
    click.option("--max-tokens", type=COUNT, default=96, show_default=True, help="Of an answer."),
    click.option("--prompt-words", type=COUNT, default=30, show_default=True, help="Of a prompt."),
    click.option("--prompt-tokens", type=COUNT, help="Prompts of so many token ids instead."),
    click.option("--prompt", help="Ask this instead of random words."),
    click.option("--dataset", type=FILE, help="sharegpt: a ShareGPT JSON file to ask from."),
    click.option("--users", type=COUNT, default=16, show_default=True, help="shared-prefix."),
    click.option("--turns", type=COUNT, default=3, show_default=True, help="shared-prefix."),
    click.option("--system-words", type=COUNT, default=500, show_default=True,
                 help="shared-prefix: length of the common system prompt."),
    click.option("--vocab-size", type=COUNT, help="Token ids are below this.  [default: 10000]"),
    click.option("--temperature", type=click.FloatRange(0, 2), help="[default: 0; nano: 0.6]"),
    click.option("--ignore-eos/--no-ignore-eos", default=None,
                 help="Answers of the full length.  [default: as the workload]"),
)  # fmt: skip
how_much = _together(
    click.option("--at-once", help="Numbers of callers.  [default: 1,4,16; nano: 256]"),
    click.option("--rate", "rates", help="Instead: questions a second, at random times: 1,2,4."),
    click.option("--burstiness", type=click.FloatRange(0, min_open=True), default=1.0,
                 show_default=True, help="Of --rate; 1 is Poisson, less is burstier."),
    click.option("--requests", "num_requests", type=COUNT, default=32, show_default=True,
                 help="For each number."),
    click.option("--rounds", "num_rounds", type=COUNT, default=3, show_default=True,
                 help="The median round is reported."),
    click.option("--warmup", type=click.IntRange(0), help="Questions before each number that do "
                 "not count.  [default: as many as callers, at most 32]"),
    click.option("--goal", help="Count answers that keep ttft=MS,tpot=MS,e2e=MS as good."),
    click.option("--same-text", is_flag=True, help="Check that answers are the same as alone."),
    click.option("--client-limit", is_flag=True, help="First measure what this client can take."),
)  # fmt: skip
where_to = _together(
    click.option("--roofline", help="shape=CONFIG.JSON and gpu=NAME, or bandwidth=GB/S,tflops=N."),
    click.option("--json", "json_to", is_flag=False, flag_value="-", metavar="[FILE]",
                 help="Write JSON to FILE, or print it."),
    click.option("--chart", type=FILE, help="Draw FILE.png or FILE.svg; needs penstock[chart]."),
)  # fmt: skip
