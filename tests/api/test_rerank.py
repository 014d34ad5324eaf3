"""POST /v1/rerank where an engine here scores the texts."""

import pytest

from tests.api.conftest import Stage

BODY = {"model": "chat-small", "query": "blue sky", "documents": ["green sea", "blue sky", "blue"]}


def test_documents_come_back_best_first_and_tokens_are_counted(stage: Stage) -> None:
    response = stage.client.post("/v1/rerank", json=BODY)

    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == "chat-small"
    assert answer["results"] == [
        {"index": 1, "relevance_score": 1.0},
        {"index": 2, "relevance_score": 1.0},
        {"index": 0, "relevance_score": 0.0},
    ]
    assert answer["usage"] == {"prompt_tokens": 11, "total_tokens": 11}
    asked = stage.engine.rerank_requests[-1]
    assert (asked.model, asked.owner) == ("scripted-model", "me")


def test_the_best_n_with_their_texts_and_texts_as_objects(stage: Stage) -> None:
    documents = [{"text": "green sea"}, {"text": "blue"}]
    body = BODY | {"documents": documents, "top_n": 1, "return_documents": True}

    response = stage.client.post("/v1/rerank", json=body)

    assert response.json()["results"] == [
        {"index": 1, "relevance_score": 1.0, "document": {"text": "blue"}}
    ]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["x"] * 2049}, "documents"),
        ({"documents": [{"txt": "x"}]}, "documents[0].txt"),
        ({"query": ""}, "query"),
        ({"query": {"text": "x"}}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ({"model": ""}, "model"),
    ],
)
def test_a_body_that_is_wrong_is_refused_by_field(
    stage: Stage, change: dict[str, object], param: str
) -> None:
    response = stage.client.post("/v1/rerank", json=BODY | change)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_a_model_that_is_not_there_is_a_404(stage: Stage) -> None:
    response = stage.client.post("/v1/rerank", json=BODY | {"model": "none"})

    assert response.status_code == 404
