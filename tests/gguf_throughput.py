"""Measures the gguf engine on a model of 125 million random weights. A script, not a test.

python -m tests.gguf_throughput rates --llama-server PATH --llama-cpp-python PYTHON
python -m tests.gguf_throughput lag
python -m tests.gguf_throughput long-prompt
python -m tests.gguf_throughput all --llama-server PATH

`rates`: output tokens a second at 1, 4, 8 and 16 callers, beside llama-server, llama_cpp.server and
Penstock with one slot (one request after another), alternated in one run. `lag`: how late the event
loop is while 16 streams are decoded. `long-prompt`: what 4,000 tokens that arrive do to 8 streams,
and how soon the same prompt is answered again, also after an unload. Only ratios within one run say
something about a machine that does other work. docs/experiments.md has what came out.
"""

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp

from gateway.bench.http_subject import HttpSubject, Server
from gateway.bench.load import AtOnce
from gateway.bench.plan import Plan, carry_out
from gateway.bench.question import Conversation, Question
from gateway.bench.summary import ratios_of
from gateway.cli.serve import SWITCH_INTERVAL_SECONDS
from tests.forwarding import listening, processor_seconds
from tests.gguf_files import MERGED_WORDS
from tests.gguf_streams import MODEL, lag, long_prompt, model_in, say
from tests.serving import write_policy

ONE_BY_ONE = "one by one"
WORDS = [word.replace("Ġ", "") for word in MERGED_WORDS]
ANSWER_TOKENS = 96
# The same chain everywhere; each server fills in another default for what is left out.
SAMPLING = {"top_k": 40, "top_p": 0.95, "min_p": 0.0}
POLICY = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing", "gguf_engine"]
        [anonymous]
        team = "me"
    """,
    "engines.toml": """
        [many]
        kind = "gguf"
        keep_alive_seconds = -1
        {threads}
        [one]
        kind = "gguf"
        num_slots = 1
        keep_alive_seconds = -1
        {threads}
    """,
    "models.toml": f"""
        [many]
        [[many.targets]]
        engine = "many"
        model = "{MODEL}"
        [one]
        [[one.targets]]
        engine = "one"
        model = "{MODEL}"
    """,
}


class Words:
    """A workload of short prompts that share no beginning."""

    def __init__(self, num_questions: int, *, seed: int) -> None:
        self._num_questions = num_questions
        self._seed = seed

    def conversations(self, place: int) -> Sequence[Conversation]:
        """Prompts of 30 words each, about 45 tokens."""
        chosen = random.Random(10_000 * self._seed + place)
        return [
            Conversation(
                questions=[
                    Question(
                        text=" ".join(chosen.choices(WORDS, k=30)),
                        max_tokens=ANSWER_TOKENS,
                        temperature=0.8,
                        ignore_eos=True,
                    )
                ]
            )
            for _ in range(self._num_questions)
        ]


@contextlib.contextmanager
def running(command: Sequence[str], port: int, **environ: str) -> Iterator[int]:
    """A server in a process of its own, listening; yields its process id."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            asyncio.run(listening(port))
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def servers(options: argparse.Namespace) -> Iterator[dict[str, tuple[Server, int]]]:
    """Everything that is compared, each started and listening, with its process id."""
    model = model_in(options.folder)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        threads = f"num_threads = {options.threads}" if options.threads else ""
        engines = POLICY["engines.toml"].replace("{threads}", threads)
        policy = write_policy(directory / "policy", {**POLICY, "engines.toml": engines})
        environ = {
            "PENSTOCK_POLICY": str(policy),
            "PENSTOCK_DATA_DIR": str(directory / "data"),
            "PENSTOCK_MODELS_DIR": str(options.folder),
        }
        command = [sys.executable, "-m", "gateway", "serve", "--port", "9411"]
        ours = stack.enter_context(running([*command, "--log-level", "error"], 9411, **environ))
        found = {"penstock": (_server("penstock", 9411, "many"), ours)}
        if options.llama_server:
            command = [options.llama_server, "-m", str(model), "-np", "16", "-kvu", "-c", "16384"]
            command += ["--cache-ram", "0", "--port", "9412"]
            command += ["-t", str(options.threads)] if options.threads else []
            name, pid = "llama-server", stack.enter_context(running(command, 9412))
            found[name] = (_server(name, 9412, MODEL), pid)
        if options.llama_cpp_python:
            command = [options.llama_cpp_python, "-m", "llama_cpp.server", "--model", str(model)]
            command += ["--n_ctx", "8192", "--interrupt_requests", "False", "--port", "9413"]
            command += ["--n_threads", str(options.threads)] if options.threads else []
            name, pid = "llama_cpp.server", stack.enter_context(running(command, 9413))
            found[name] = (_server(name, 9413, MODEL), pid)
        yield {**found, ONE_BY_ONE: (_server(ONE_BY_ONE, 9411, "one"), ours)}


def _server(name: str, port: int, model: str) -> Server:
    return Server(
        url=f"http://127.0.0.1:{port}",
        model=model,
        name=name,
        endpoint="completions",
        extra=SAMPLING,
    )


class Processor:
    """A `Watcher` that notes what each server's processor computed in its rounds."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.seconds = dict.fromkeys(pids, 0.0)
        self._pids = pids
        self._name = ""
        self._began = 0.0

    def began(self, what: str, num_questions: int) -> None:
        """Say which run it is."""
        print(f"  {what}", file=sys.stderr)  # noqa: T201
        self._name, _, run = what.partition(": ")
        if run == "warm-up":
            self._name = ""
        else:
            self._began = processor_seconds(self._pids[self._name])

    def answered(self) -> None:
        """Nothing."""

    def ended(self) -> None:
        """Add it up."""
        if self._name:
            spent = processor_seconds(self._pids[self._name]) - self._began
            self.seconds[self._name] += spent


async def rates(options: argparse.Namespace, found: Mapping[str, tuple[Server, int]]) -> None:
    """Tokens a second and the time to the first, of every server at every level."""
    # llama-server ends idle connections in the moment in which they would be used again.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    headers = {"content-type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        subjects = [HttpSubject(server, session) for server, _ in found.values()]
        for subject in subjects:
            await ready(subject)
        for level in map(int, options.at_once.split(",")):
            plan = Plan(
                # Other prompts for each level: one that was asked before is not computed again.
                workload=Words(max(6, 2 * level), seed=level),
                loads=[AtOnce(level)],
                num_rounds=options.rounds,
            )
            processor = Processor({name: pid for name, (_, pid) in found.items()})
            results = await carry_out(plan, subjects, processor)
            for result in results:
                tokens = sum(summary.output_tokens for summary in result.rounds)
                spent = 1000 * processor.seconds[result.subject] / tokens
                summary = result.summary
                first = summary.latencies.first_output
                ratios = {
                    ratio.figure: f"{ratio.median:.2f} ({ratio.lowest:.2f}-{ratio.highest:.2f})"
                    for ratio in ratios_of(results[0].rounds, result.rounds)
                }
                say(
                    f"{level:2} at once  {result.subject:17} "
                    f"{summary.tokens_per_second:7.1f} tok/s, first output p50 "
                    f"{1000 * first.p50 if first else 0:6.0f} ms, "
                    f"{spent:5.2f} ms of processor a token; penstock has "
                    f"{ratios.get('output tokens/s')} of its rate, "
                    f"{ratios.get('first output p50')} of its first output "
                    f"{dict(summary.failure_messages) or ''}"
                )


async def ready(subject: HttpSubject) -> None:
    """Return when it has answered once: servers listen before they have loaded."""
    question = Question(text="hello", max_tokens=2)
    for _ in range(600):
        try:
            await subject.ask(question, [])
        except Exception:  # noqa: BLE001 - whatever a server says while it loads
            await asyncio.sleep(0.2)
        else:
            return
    raise SystemExit(f"{subject.name} does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gguf_throughput")
    parser.add_argument("what", choices=["rates", "lag", "long-prompt", "all"])
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "penstock-gguf-throughput"
    )
    parser.add_argument("--llama-server", help="the program, to be measured beside")
    parser.add_argument("--llama-cpp-python", help="a Python that has llama_cpp.server")
    parser.add_argument("--threads", type=int, help="of every server (default: as each chooses)")
    parser.add_argument("--at-once", default="1,4,8,16")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)  # as when it is served
    import uvloop

    if options.what in ("rates", "all"):
        with servers(options) as found:
            uvloop.run(rates(options, found))
    if options.what in ("lag", "all"):
        uvloop.run(lag(options.folder))
    if options.what in ("long-prompt", "all"):
        uvloop.run(long_prompt(options.folder))


if __name__ == "__main__":
    main()
