from pathlib import Path

import msgspec
import pytest

from gateway.policy import (
    EnginePolicy,
    LimitPolicy,
    ModelPolicy,
    Policy,
    SamplingDefaults,
    Secret,
    TargetPolicy,
    TeamPolicy,
)
from gateway.policy.changes import changes_of


class Config(msgspec.Struct, frozen=True):
    key: Secret | None = None
    path: Path = Path("a")


def policy_of(**changes: object) -> Policy:
    policy = Policy(
        directory=Path("p"),
        digest="",
        plugins=["usage", "routing"],
        tables={},
        engines={"gpu0": EnginePolicy(name="gpu0", kind="remote", config=Config())},
        models={
            "chat": ModelPolicy(
                name="chat",
                targets=[TargetPolicy(engine="gpu0", weight=95), TargetPolicy(engine="gpu1")],
            )
        },
        teams={"a b": TeamPolicy(name="a b", models=["*"])},
        limits={"none": LimitPolicy(name="none")},
        aliases={},
    )
    return msgspec.structs.replace(policy, **changes)


def a_model(**changes: object) -> dict[str, ModelPolicy]:
    return {"chat": msgspec.structs.replace(policy_of().models["chat"], **changes)}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"directory": Path("q"), "digest": "1"}, []),
        ({"plugins": ["routing"]}, ['gateway.toml: plugins: "usage" removed']),
        (
            {"plugins": ["routing", "usage"]},
            ["gateway.toml: plugins: now in the order routing, usage"],
        ),
        ({"teams": {}}, ['teams.toml: ["a b"] removed']),
        (
            {"teams": {"a b": TeamPolicy(name="a b", models=["x", "!y"])}},
            ['teams.toml: ["a b"] models: ["*"] -> ["x", "!y"]'],
        ),
        (
            {"limits": {"none": LimitPolicy(name="none", concurrent_calls=3)}},
            ["limits.toml: [none] concurrent_calls: unset -> 3"],
        ),
        (
            {"models": a_model(defaults=SamplingDefaults(temperature=0.5))},
            ["models.toml: [chat] defaults.temperature: unset -> 0.5"],
        ),
        (
            {"models": a_model(targets=[TargetPolicy(engine="gpu0", weight=90)])},
            [
                "models.toml: [chat] targets[0].weight: 95 -> 90",
                "models.toml: [chat] targets[1]: { engine = \"gpu1\", weight = 1.0, priority = 0, "
                "drain = false } -> nothing",
            ],
        ),
        (
            {"engines": {"gpu0": EnginePolicy(name="gpu0", kind="gguf", config=Config())}},
            ['engines.toml: [gpu0] kind: "remote" -> "gguf"'],
        ),
        (
            {
                "engines": {
                    "gpu0": EnginePolicy(
                        name="gpu0", kind="remote", config=Config(Secret(env="KEY"), Path("b"))
                    )
                }
            },
            [
                'engines.toml: [gpu0] key: unset -> { env = "KEY" }',
                'engines.toml: [gpu0] path: "a" -> "b"',
            ],
        ),
    ],
)  # fmt: skip
def test_a_change_reads_as_its_file_table_and_key(
    changes: dict[str, object], lines: list[str]
) -> None:
    assert list(changes_of(policy_of(), policy_of(**changes))) == lines
