"""What the options of `penstock bench` become: a plan, and whom to ask.

Nothing of `gateway.bench` is imported before an option needs it, so that
`penstock bench --help` stays quick.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from gateway.cli.bench_options import DEFAULT_AT_ONCE
from gateway.cli.client import default_url

if TYPE_CHECKING:
    from gateway.bench.http_subject import Endpoint, Server
    from gateway.bench.load import Load
    from gateway.bench.plan import Bound, Plan
    from gateway.bench.summary import Goal
    from gateway.bench.workloads import Workload


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, understood."""

    model: str
    workload_name: str
    plan: "Plan"
    servers: "Sequence[Server]"
    engine: str | None
    policy: Path | None
    measures_client: bool
    json_to: str | None
    chart: Path | None
    roofline: "Bound | None"
    given: Mapping[str, Any]  # as typed, without keys


def read(model: str, given: Mapping[str, Any]) -> Options:
    """Check the options together. Raises `click.UsageError`."""
    from gateway.bench.plan import Plan
    from gateway.bench.workloads import WorkloadInvalid

    if given["policy"] is not None and given["engine"] is None:
        raise click.UsageError("--policy goes with --engine: servers have their own")
    endpoint = _endpoint(given)
    try:
        workload = _workload(given, endpoint)
    except WorkloadInvalid as error:
        raise click.UsageError(str(error)) from None
    loads = _loads(given)
    _check_enough(workload, loads)
    servers = _servers(model, given, endpoint)
    bound = _bound(given["roofline"])
    return Options(
        model=model,
        workload_name=given["workload"],
        plan=Plan(
            workload=workload,
            loads=loads,
            num_rounds=given["num_rounds"],
            warmup=given["warmup"],
            goal=_goal(given["goal"]),
            checks_same_text=_same_text(given),
            bounds={server.name: bound for server in servers} if bound else {},
        ),
        servers=servers,
        engine=given["engine"],
        policy=given["policy"],
        measures_client=given["client_limit"],
        json_to=given["json_to"],
        chart=given["chart"],
        roofline=bound,
        given={name: value for name, value in given.items() if "key" not in name},
    )


def _endpoint(given: Mapping[str, Any]) -> "Endpoint":
    needs_ids = given["workload"] == "nano" or given["prompt_tokens"] is not None
    if needs_ids and given["endpoint"] == "chat":
        raise click.UsageError("chat takes no token ids: leave --endpoint chat out")
    return given["endpoint"] or ("completions" if needs_ids else "chat")


def _workload(given: Mapping[str, Any], endpoint: "Endpoint") -> "Workload":
    """The chosen workload; an option that is None leaves the workload's own default."""
    chosen = {
        name: given[name] for name in ("temperature", "ignore_eos") if given[name] is not None
    }
    vocab = {} if given["vocab_size"] is None else {"vocab_size": given["vocab_size"]}
    lengths = {"max_tokens": given["max_tokens"], "prompt_words": given["prompt_words"]}
    match given["workload"]:
        case "nano":
            from gateway.bench.workloads.nano import Nano

            if chosen.pop("ignore_eos", True) is False:
                raise click.UsageError("nano is defined with --ignore-eos")
            return Nano(**vocab, **chosen)
        case "shared-prefix":
            from gateway.bench.workloads.shared_prefix import SharedPrefix

            return SharedPrefix(
                num_users=given["users"],
                num_turns=given["turns"],
                system_words=given["system_words"],
                **lengths,
                **chosen,
            )
        case "sharegpt":
            return _sharegpt(given, chosen | vocab, uses_ids=endpoint == "completions")
        case _:
            from gateway.bench.workloads.fixed import Fixed

            return Fixed(
                num_requests=given["num_requests"],
                prompt_tokens=given["prompt_tokens"],
                prompt=given["prompt"],
                **lengths,
                **vocab,
                **chosen,
            )


def _sharegpt(given: Mapping[str, Any], chosen: dict[str, Any], *, uses_ids: bool) -> "Workload":
    from gateway.bench.workloads.sharegpt import ChatLog, Mix, read_log

    num_requests = given["num_requests"]
    if given["dataset"] is None:
        return Mix(num_requests=num_requests, uses_token_ids=uses_ids, **chosen)
    chosen.pop("vocab_size", None)
    pairs = read_log(given["dataset"], num_requests=num_requests)
    return ChatLog(pairs=pairs, num_requests=num_requests, **chosen)


def _loads(given: Mapping[str, Any]) -> "list[Load]":
    from gateway.bench.load import AtOnce, Rate

    if given["rates"] is not None:
        if given["at_once"] is not None:
            raise click.UsageError("--rate and --at-once exclude each other")
        rates = _numbers("--rate", given["rates"], float)
        return [Rate(rate, given["burstiness"]) for rate in rates]
    text = given["at_once"] or DEFAULT_AT_ONCE.get(given["workload"], "1,4,16")
    return [AtOnce(number) for number in _numbers("--at-once", text, int)]


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0 or max(numbers) > 1e6 or len(set(numbers)) < len(numbers):
        raise click.UsageError(f"{option} {text!r} is not a list of different numbers like 1,4,16")
    return numbers


def _check_enough(workload: "Workload", loads: "Sequence[Load]") -> None:
    from gateway.bench.load import AtOnce

    there_are = len(workload.conversations(0))
    most = max((load.num_callers for load in loads if isinstance(load, AtOnce)), default=0)
    if most > there_are:
        raise click.UsageError(
            f"{there_are} conversations are too few for {most} at once; see --requests "
            "(shared-prefix: --users) and --at-once"
        )


def _servers(model: str, given: Mapping[str, Any], endpoint: "Endpoint") -> "list[Server]":
    from gateway.bench.http_subject import Server

    urls = list(given["urls"])
    if not urls and given["engine"] is None:
        urls = [default_url()]
    asked = [(url, model, given["key"]) for url in urls]
    if given["vs"] is not None:
        asked.append((given["vs"], given["vs_model"] or model, given["vs_key"] or given["key"]))
    elif given["vs_model"] is not None:
        raise click.UsageError("--vs-model goes with --vs")
    extra = _extra(given["extra"])
    servers: list[Server] = []
    for url, name, key in asked:
        base = url.rstrip("/").removesuffix("/v1")
        label = base if base not in [server.name for server in servers] else f"{base} ({name})"
        if label in [server.name for server in servers]:
            raise click.UsageError(f"{url} is named too often for the model {name}")
        servers.append(
            Server(
                url=base,
                model=name,
                name=label,
                key=key or "",
                endpoint=endpoint,
                extra=extra,
                timeout_seconds=given["timeout"],
            )
        )
    return servers


def _extra(text: str) -> dict[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--extra is not JSON: {error}") from None
    if not isinstance(extra, dict):
        raise click.UsageError("--extra is not a JSON object")
    return cast(dict[str, Any], extra)


def _goal(text: str | None) -> "Goal | None":
    from gateway.bench.summary import Goal

    if text is None:
        return None
    fields = {"ttft": "first_output", "tpot": "per_token", "e2e": "total"}
    limits = _pairs("--goal", text, tuple(fields))
    return Goal(
        **{fields[name]: _positive("--goal", value) / 1000 for name, value in limits.items()}
    )


def _pairs(option: str, text: str, known: Sequence[str]) -> dict[str, str]:
    """`a=1,b=2` as a dictionary whose keys are known."""
    pairs: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in known or not value:
            raise click.UsageError(f"{option} takes {', '.join(f'{key}=…' for key in known)}")
        pairs[name] = value
    return pairs


def _positive(option: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.UsageError(f"{option}: {text!r} is not a number above 0")
    return number


def _bound(text: str | None) -> "Bound | None":
    from gateway.bench.gpu import machine_here
    from gateway.bench.plan import Bound
    from gateway.bench.roofline import GPUS, Machine, RooflineUnknown, shape_of

    if text is None:
        return None
    pairs = _pairs("--roofline", text, ("shape", "gpu", "bandwidth", "tflops"))
    if "shape" not in pairs:
        raise click.UsageError("--roofline needs shape=, a model folder or its config.json")
    try:
        shape = shape_of(Path(pairs["shape"]))
    except RooflineUnknown as error:
        raise click.UsageError(f"--roofline: {error}") from None
    if "bandwidth" in pairs and "tflops" in pairs:
        machine = Machine(
            bytes_per_second=_positive("--roofline", pairs["bandwidth"]) * 1e9,
            flops_per_second=_positive("--roofline", pairs["tflops"]) * 1e12,
            source="--roofline",
        )
    else:
        machine = GPUS.get(pairs["gpu"]) if "gpu" in pairs else machine_here()
    if machine is None:
        raise click.UsageError(
            f"--roofline: {pairs.get('gpu', 'the GPU here')!r} is not in the table (there are: "
            f"{', '.join(GPUS)}); give bandwidth= (GB/s) and tflops= instead"
        )
    return Bound(shape, machine)


def bound_of_engine(config: Any) -> "Bound | None":
    """The bound of an engine whose configuration names a model folder, on a known GPU."""
    from gateway.bench.gpu import machine_here
    from gateway.bench.plan import Bound
    from gateway.bench.roofline import RooflineUnknown, shape_of

    folder = getattr(config, "model", None)
    machine = machine_here() if isinstance(folder, str | Path) else None
    if machine is None:
        return None
    try:
        return Bound(shape_of(Path(str(folder)).expanduser()), machine)
    except RooflineUnknown:
        return None


def _same_text(given: Mapping[str, Any]) -> bool:
    hot = given["temperature"] or (given["workload"] == "nano" and given["temperature"] is None)
    if given["same_text"] and hot:
        raise click.UsageError("--same-text needs --temperature 0")
    return bool(given["same_text"])
