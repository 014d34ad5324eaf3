import pytest
import structlog

from engines.protocol import EmbedRequest, GenerateRequest
from gateway import Forbidden, ModelUnknown
from gateway.policy import ModelPolicy, TeamPolicy
from plugins.allow_lists import AllowLists
from tests.plugins.policies import TARGETS, call_of, policy_of

MODELS = (
    ModelPolicy(name="chat-small", targets=TARGETS, aliases=["gpt-4o-mini"]),
    ModelPolicy(name="chat-secret", targets=TARGETS, aliases=["public-alias"]),
    ModelPolicy(name="*", targets=TARGETS),
)
SEARCH = TeamPolicy(
    name="search",
    models=["chat-*", "!chat-secret"],
    endpoints=["openai.*", "!openai.embeddings"],
)
POLICY = policy_of(models=MODELS, teams=[SEARCH])


async def test_a_team_may_make_the_calls_of_its_lists():
    await AllowLists().authorize(call_of(POLICY))
    await AllowLists().authorize(call_of(POLICY, model="gpt-4o-mini"))
    await AllowLists().authorize(call_of(POLICY, model=None, endpoint="openai.models"))


async def test_an_endpoint_outside_the_list_is_forbidden():
    with pytest.raises(Forbidden, match=r"team 'search' may not use admin\.keys"):
        await AllowLists().authorize(call_of(POLICY, endpoint="admin.keys"))


async def test_a_denial_wins_over_what_allows():
    with pytest.raises(Forbidden, match=r"openai\.embeddings"):
        await AllowLists().authorize(call_of(POLICY, endpoint="openai.embeddings"))
    with pytest.raises(ModelUnknown):
        await AllowLists().authorize(call_of(POLICY, model="chat-secret"))


async def test_a_forbidden_endpoint_is_told_before_an_unknown_model():
    with pytest.raises(Forbidden):
        await AllowLists().authorize(call_of(POLICY, endpoint="admin.keys", model="chat-secret"))


async def test_a_model_behind_a_glob_is_judged_by_the_name_that_was_asked_for():
    await AllowLists().authorize(call_of(POLICY, model="chat-9b"))
    with pytest.raises(ModelUnknown, match="llama3"):
        await AllowLists().authorize(call_of(POLICY, model="llama3"))


async def test_a_denied_model_is_denied_with_the_tag_latest_and_without():
    denied = TeamPolicy(name="search", models=["*", "!llama3", "!qwen:latest"], endpoints=["*"])
    policy = policy_of(models=MODELS, teams=[denied])

    for name in ("llama3", "llama3:latest", "qwen", "qwen:latest"):
        with pytest.raises(ModelUnknown):
            await AllowLists().authorize(call_of(policy, model=name))
    await AllowLists().authorize(call_of(policy, model="qwen:7b"))


async def test_a_refusal_does_not_tell_which_model_an_alias_stands_for():
    request = GenerateRequest(id="req_1", model="public-alias")
    with pytest.raises(ModelUnknown, match="public-alias") as refused:
        await AllowLists().authorize(call_of(POLICY, request, model="public-alias"))
    assert "chat-secret" not in refused.value.message

    call = call_of(POLICY, model="public-alias")
    call.embed_request = EmbedRequest(id="req_1", model="public-alias", inputs=["x"])
    with pytest.raises(ModelUnknown, match="public-alias"):
        await AllowLists().authorize(call)


async def test_a_team_that_the_policy_does_not_have_is_forbidden_and_logged():
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(Forbidden, match="ask whoever runs it") as refused,
    ):
        await AllowLists().authorize(call_of(POLICY, team="gone", key_id="k1"))

    assert "gone" not in refused.value.message
    assert logs == [
        {"event": "team_unknown", "team": "gone", "key_id": "k1", "log_level": "warning"}
    ]


async def test_a_team_with_empty_lists_may_do_nothing():
    policy = policy_of(teams=[TeamPolicy(name="search")])

    with pytest.raises(Forbidden):
        await AllowLists().authorize(call_of(policy))
