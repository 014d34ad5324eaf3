import msgspec
import pytest

from engines.protocol import EmbedRequest, GenerateRequest, Sampling
from gateway.narrowing import Narrowing
from gateway.policy import LimitPolicy, ModelPolicy, Policy, SamplingDefaults, TeamPolicy
from plugins.defaults import Defaults, DefaultsTable
from tests.plugins.policies import TARGETS, call_of, policy_of

REQUEST = GenerateRequest(id="req_1", model="chat-small")


def _policy(*, cap: int | None = None, share_cache: bool = False, **defaults: float) -> Policy:
    return policy_of(
        models=[
            ModelPolicy(name="chat-small", targets=TARGETS, defaults=SamplingDefaults(**defaults))
        ],
        teams=[TeamPolicy(name="search", limits="standard", weight=3, priority=-1)],
        limits=[LimitPolicy(name="standard", max_output_tokens=cap)],
        tables={"defaults": DefaultsTable(share_prompt_cache=share_cache)},
    )


async def test_open_fields_take_the_models_defaults_and_given_ones_stay():
    policy = _policy(temperature=0.7, top_p=0.9, seed=5)
    given = GenerateRequest(
        id="req_1", model="chat-small", sampling=Sampling(temperature=0.0, logit_bias={7: 1.0})
    )
    call = call_of(policy, given)

    await Defaults().prepare(call)

    assert call.requests[0].sampling == Sampling(
        temperature=0.0, top_p=0.9, seed=5, logit_bias={7: 1.0}
    )


async def test_every_request_of_a_call_is_completed():
    call = call_of(_policy(temperature=0.7), REQUEST, REQUEST)

    await Defaults().prepare(call)

    assert [request.sampling.temperature for request in call.requests] == [0.7, 0.7]


def test_every_default_is_a_field_of_sampling_or_the_length():
    fields = set(SamplingDefaults.__struct_fields__)

    assert fields - {"max_tokens"} <= set(Sampling.__struct_fields__)


@pytest.mark.parametrize(
    ("asked", "default", "cap", "expected"),
    [
        (None, None, None, None),
        (100, None, None, 100),
        (None, 50, None, 50),
        (100, 50, None, 100),
        (None, None, 80, 80),
        (100, None, 80, 80),
        (10, None, 80, 10),
        (None, 200, 80, 80),
        (100, 50, 80, 80),
    ],
)
async def test_output_is_what_was_asked_for_up_to_the_teams_cap(asked, default, cap, expected):
    defaults = {} if default is None else {"max_tokens": default}
    request = GenerateRequest(id="req_1", model="chat-small", max_tokens=asked)
    call = call_of(_policy(cap=cap, **defaults), request)

    await Defaults().prepare(call)

    assert call.requests[0].max_tokens == expected


async def test_a_request_carries_its_teams_share():
    call = call_of(_policy(), REQUEST)
    call.embed_request = EmbedRequest(id="req_1", model="chat-small", inputs=["x"])

    await Defaults().prepare(call)

    for request in (*call.requests, call.embed_request):
        assert (request.owner, request.weight, request.priority) == ("search", 3, -1)


async def test_the_prompt_cache_is_each_teams_own_unless_the_policy_shares_it():
    own, shared = call_of(_policy(), REQUEST), call_of(_policy(share_cache=True), REQUEST)

    await Defaults().prepare(own)
    await Defaults().prepare(shared)

    assert own.requests[0].cache_salt == "search"
    assert shared.requests[0].cache_salt == ""


async def test_a_team_without_limits_is_not_capped():
    policy = policy_of(teams=[TeamPolicy(name="search")])
    call = call_of(policy, REQUEST)

    await Defaults().prepare(call)

    assert call.requests[0].max_tokens is None


async def test_a_call_without_a_model_or_a_known_team_is_left_whole():
    call = call_of(policy_of(), model=None, team="gone")

    await Defaults().prepare(call)

    assert list(call.requests) == []
    assert call.embed_request is None


async def test_a_keys_own_limits_cap_its_output_further_and_never_raise_the_cap():
    limits = [
        LimitPolicy(name="standard", max_output_tokens=100),
        LimitPolicy(name="small", max_output_tokens=8),
        LimitPolicy(name="large", max_output_tokens=1000),
        LimitPolicy(name="open"),
    ]
    team = TeamPolicy(name="search", models=["*"], endpoints=["*"], limits="standard")
    policy = policy_of(teams=[team], limits=limits)

    caps: dict[str | None, int | None] = {}
    for name in (None, "small", "large", "open", "gone"):
        call = call_of(policy, GenerateRequest(id="r", model="chat-small", max_tokens=500))
        call.principal = msgspec.structs.replace(call.principal, narrowing=Narrowing(limits=name))
        await Defaults().prepare(call)
        caps[name] = call.requests[0].max_tokens

    assert caps == {None: 100, "small": 8, "large": 100, "open": 100, "gone": 100}
