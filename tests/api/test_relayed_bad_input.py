"""Bodies that are passed on, with something in them that what is written into them cannot be in.

What is wrong with a body is its caller's to mend: a refusal that names the field, or the
upstream's own word on it, and never a failure.
"""

from collections.abc import Iterator

import pytest

from tests.api.remote_stage import RemoteStage, remote_stage
from tests.upstream import CHAT, DONE, END, SSE_HEAD, Connection, answering, chunk, chunked

FILES = {
    "limits.toml": "[none]\nmax_output_tokens = 1000\noutput_tokens_per_minute = 1_000_000_000",
    "models.toml": """
        [patient-model]
        defaults = { temperature = 0.25, top_k = 3, max_tokens = 99 }
          [[patient-model.targets]]
          engine = "patient"
          model  = "upstream-model"
    """,
}
FIELDS = (
    "model", "messages", "prompt", "input", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "max_new_tokens", "n_predict", "stream", "stream_options", "temperature",
    "top_p", "top_k", "min_p", "repetition_penalty", "seed", "n", "best_of", "user",
    "prompt_cache_key",
)  # fmt: skip
VALUES = (
    "null", "true", "false", '"x"', '""', "0", "-1", "1.5", "1e400", "-0", "1E5", "9" * 30,
    "9" * 4300, "9" * 5000, "-" + "9" * 5000, "0." + "1" * 5000, "[]", "{}", '["a"]', "[[1]]",
    '{"include_usage":1}', '{"include_usage":null}', '[{"role":5}]', r'"\ud800"',
    '[{"role":"user","content":[{"text":[1]}]}]', '{"a":' * 100 + "1" + "}" * 100,
)  # fmt: skip
STREAM = SSE_HEAD + chunked(chunk("hi") + chunk() + DONE) + END


async def understanding(connection: Connection) -> None:
    """An upstream that streams if it is asked to, in the words of the specification."""
    streams = b'"stream":true' in connection.request.body
    if streams:
        await connection.send(STREAM)  # in one go: in many it would wait for acknowledgements
        connection.keeps = True
    else:
        await answering(CHAT)(connection)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStage]:
    with remote_stage(tmp_path_factory.mktemp("bad"), FILES) as stage:
        stage.upstream.scene = understanding
        yield stage


def body_with(field: str, value: str, *, stream: bool) -> str:
    given = {"model": '"patient-model"', "messages": "[]", "stream": "true" if stream else "false"}
    fields = given | {field: value}
    return "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("stream", [False, True])
def test_no_value_of_a_field_that_is_looked_at_is_a_failure(
    stage: RemoteStage, field: str, *, stream: bool
) -> None:
    for value in VALUES:
        response = stage.client.post(
            "/v1/chat/completions",
            content=body_with(field, value, stream=stream),
            headers={"content-type": "application/json"},
        )

        assert response.status_code < 500, (value[:100], response.text)
        assert '"internal"' not in response.text, value[:100]


@pytest.mark.parametrize("field", ["stream", "stream_options"])
@pytest.mark.parametrize("value", [1, "true", []])
def test_what_decides_how_an_answer_is_read_is_refused_by_its_name(
    stage: RemoteStage, field: str, value: object
) -> None:
    stage.upstream.clear()

    response = stage.chat(**{"stream": True, field: value})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == field
    assert stage.upstream.requests == []
