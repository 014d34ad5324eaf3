"""Weights, canaries and stickiness over ten thousand calls, and over a reload."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from engines.protocol import GenerateRequest
from gateway import Call, Principal
from gateway.dispatch import dispatch
from gateway.policy import Policy
from gateway.targets.retry_budget import RESERVE
from plugins.routing import Routing
from tests.fakes import ScriptedEngine
from tests.gateway.policy.directories import load, write
from tests.gateway.targets.stage import StageOfTargets

NUM_CALLS = 10_000
ENGINES = (
    '[gpu0]\nkind = "gguf"\n[gpu1]\nkind = "gguf"\n[gpu2]\nkind = "gguf"\n[new]\nkind = "gguf"\n'
)
WEIGHTED = """
[chat-small]
{keys}
targets = [
  {{ engine = "gpu0", weight = 60 }},
  {{ engine = "gpu1", weight = 35 }},
  {{ engine = "gpu2", weight = 5 }},
  {more}
]
"""
SHARES = {"gpu0": 0.60, "gpu1": 0.35, "gpu2": 0.05}


class Calls:
    """Sends calls through routing and dispatch, and notes which engine answered each."""

    def __init__(self, policy: Policy, seed: int = 1) -> None:
        self.policy = policy
        self.engines = {
            name: ScriptedEngine(["x"], name=name, model_names=["chat-small"])
            for name in ("gpu0", "gpu1", "gpu2", "new")
        }
        self.stage = StageOfTargets(self.engines)
        self.draw = random.Random(seed).random

    async def engine(
        self, *, key: str | None = None, session: str = "", team: str = "search", **headers: str
    ) -> str:
        call = Call(
            id="r",
            endpoint="openai.chat",
            policy=self.policy,
            principal=Principal(name="n", team=team, key_id=key),
            model=self.policy.resolve("chat-small"),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            session=session,
        )
        call.requests = [GenerateRequest(id="r", model="chat-small", prompt=session)]
        # A plugin of each policy's own, as after a reload.
        call.route = await Routing(self.stage, draw=self.draw).route(call)
        await dispatch(call, self.stage, call.requests[0])
        await call.resources.aclose()
        assert call.target is not None
        return call.target.engine


def policy(directory: Path, keys: str = "", more: str = "", **files: str) -> Policy:
    models = WEIGHTED.format(keys=keys, more=more)
    return load(write(directory, engines=ENGINES, models=models, **files))


def assert_shares(counts: Counter[str], shares: dict[str, float]) -> None:
    """Each within five standard deviations: wrong once in two million runs of other seeds."""
    total = counts.total()
    for name, share in shares.items():
        tolerance = 5 * math.sqrt(total * share * (1 - share))
        assert abs(counts[name] - total * share) < tolerance, (name, counts)


async def test_weights_are_the_shares_of_calls(tmp_path: Path) -> None:
    calls = Calls(policy(tmp_path))

    assert_shares(Counter([await calls.engine() for _ in range(NUM_CALLS)]), SHARES)
    assert calls.stage.targets.budget("chat-small").num_extra == 0


@pytest.mark.parametrize("sticky", ["key", "session", "prefix"])
async def test_sticky_keys_have_the_shares_and_each_keeps_its_own(
    tmp_path: Path, sticky: str
) -> None:
    calls = Calls(policy(tmp_path, f'sticky = "{sticky}"'))
    places: dict[str, set[str]] = {}

    for number in range(NUM_CALLS):
        name = f"k{number % 5000}"
        places.setdefault(name, set()).add(
            await (calls.engine(key=name) if sticky == "key" else calls.engine(session=name))
        )

    assert all(len(engines) == 1 for engines in places.values())
    assert_shares(Counter([next(iter(engines)) for engines in places.values()]), SHARES)


@pytest.mark.parametrize("sticky", ["key", "session", "prefix"])
async def test_stickiness_survives_a_reload_and_a_restart(tmp_path: Path, sticky: str) -> None:
    before = policy(tmp_path, f'sticky = "{sticky}"')
    calls = Calls(before)
    names = [f"k{number}" for number in range(NUM_CALLS // 4)]

    async def places(calls: Calls) -> list[str]:
        return [
            await (calls.engine(key=name) if sticky == "key" else calls.engine(session=name))
            for name in names
        ]

    first = await places(calls)

    # The same again, read anew, with another comment and another model.
    calls.policy = policy(tmp_path, f'# reviewed in June\nsticky = "{sticky}"\ndescription = "x"')
    calls.stage.targets.policy_replaced(before, calls.policy)
    assert await places(calls) == first

    # A new process has the same policy and nothing else.
    assert await places(Calls(calls.policy, seed=2)) == first

    # A new target takes its share from everyone, and moves nobody between the others.
    calls.policy = policy(tmp_path, f'sticky = "{sticky}"', '{ engine = "new", weight = 100 }')
    after = await places(calls)
    moved = [new for old, new in zip(first, after, strict=True) if new != old]
    assert set(moved) == {"new"}
    assert_shares(Counter(after), {"new": 0.5})


async def test_a_target_that_is_down_moves_its_own_sessions_only_and_they_come_back(
    tmp_path: Path,
) -> None:
    calls = Calls(policy(tmp_path, 'sticky = "session"'))
    names = [f"s{number}" for number in range(2000)]
    first = [await calls.engine(session=name) for name in names]

    calls.stage.targets.drain("gpu1")
    meanwhile = [await calls.engine(session=name) for name in names]
    calls.stage.targets.resume("gpu1")
    again = [await calls.engine(session=name) for name in names]

    moved = [new for old, new in zip(first, meanwhile, strict=True) if old != new]
    assert again == first
    assert len(moved) == first.count("gpu1")
    assert_shares(Counter(moved), {"gpu0": 60 / 65})


async def test_a_canary_by_weight_by_team_by_key_and_by_header(tmp_path: Path) -> None:
    canary = """{ engine = "new", canary = { teams = ["ops"], keys = ["k3v9*"],
                  headers = { x-canary = "yes" }, percent = 30 } }"""
    teams = '[search]\nmodels=["*"]\nendpoints=["*"]\n[ops]\nmodels=["*"]\nendpoints=["*"]\n'
    calls = Calls(policy(tmp_path, more=canary.replace("\n", ""), teams=teams))

    everyone = Counter([await calls.engine(key="k1") for _ in range(NUM_CALLS)])
    assert everyone["new"] == 0
    assert_shares(everyone, SHARES)

    for meant in ({"team": "ops"}, {"key": "k3v90q"}, {"x_canary": "yes"}):
        counts = Counter([await calls.engine(**meant) for _ in range(NUM_CALLS)])
        assert_shares(counts, {"new": 0.3, **{name: 0.7 * SHARES[name] for name in SHARES}})


async def test_a_canary_for_a_share_of_everyone_holds_beside_the_weights(tmp_path: Path) -> None:
    calls = Calls(policy(tmp_path, more='{ engine = "new", canary = { percent = 3 } }'))

    counts = Counter([await calls.engine() for _ in range(NUM_CALLS)])

    assert_shares(counts, {"new": 0.03, **{name: 0.97 * SHARES[name] for name in SHARES}})


async def test_a_target_that_is_down_leaves_its_share_to_the_others_by_weight(
    tmp_path: Path,
) -> None:
    calls = Calls(policy(tmp_path))
    calls.stage.targets.drain("gpu0")

    counts = Counter([await calls.engine() for _ in range(NUM_CALLS)])

    assert counts["gpu0"] == 0
    assert_shares(counts, {"gpu1": 35 / 40, "gpu2": 5 / 40})
    # Passing over a target is no second attempt.
    assert calls.stage.targets.budget("chat-small").num_extra == 0
    assert calls.stage.targets.budget("chat-small").left > RESERVE
