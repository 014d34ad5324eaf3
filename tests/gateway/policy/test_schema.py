from msgspec import Struct

from gateway.policy import EnginePolicy, ModelPolicy, Policy, TargetPolicy
from tests.gateway.policy.directories import GOOD, TeamTable, load, write

TARGETS = (TargetPolicy(engine="gpu0"),)


def _policy(tmp_path, models: str) -> Policy:
    return load(write(tmp_path, models=models))


def test_a_name_an_alias_and_a_glob_each_find_their_model(tmp_path):
    policy = _policy(
        tmp_path,
        GOOD["models"]
        + '["*"]\n[["*".targets]]\nengine = "gpu1"\n'
        + '["qwen*"]\n[["qwen*".targets]]\nengine = "gpu0"\n',
    )

    assert policy.resolve("chat-small").name == "chat-small"
    assert policy.resolve("gpt-4o-mini").name == "chat-small"
    assert policy.resolve("qwen3:0.6b").targets[0].engine == "gpu0"
    assert policy.resolve("llama3").targets[0].engine == "gpu1"


def test_a_glob_answers_under_the_name_that_was_asked_for(tmp_path):
    policy = _policy(tmp_path, '["*"]\n[["*".targets]]\nengine = "gpu1"\n')

    assert policy.resolve("llama3").name == "llama3"


def test_nobody_can_ask_for_a_glob_itself(tmp_path):
    policy = _policy(tmp_path, '["qwen*"]\n[["qwen*".targets]]\nengine = "gpu1"\n')

    assert policy.resolve("qwen*") is None
    assert policy.resolve("llama3") is None


def test_a_plugin_without_a_table_in_the_file_has_its_defaults(tmp_path):
    class Table(Struct):
        share: bool = False

    policy = load(write(tmp_path, gateway=GOOD["gateway"] + '[anonymous]\nteam = "search"\n'))

    assert policy.table("routing", Table) == Table(share=False)
    assert policy.table("anonymous", TeamTable) == TeamTable(team="search")


def test_a_policy_can_be_built_by_hand():
    model = ModelPolicy(name="m", targets=TARGETS)

    assert model.sticky is None
    assert EnginePolicy(name="gpu0", kind="gguf", config=None).kind == "gguf"
