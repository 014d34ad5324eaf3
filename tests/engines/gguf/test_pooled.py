"""Documents are scored as the model that transformers computes scores them."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from engines.errors import ContextTooLong, ModelNotFound, Unsupported
from engines.gguf.engine import GgufEngine
from engines.protocol import Capability, EmbedRequest
from engines.reranking import Reranking, RerankRequest, Reranks
from tests.engines.gguf import classifier_files as files
from tests.engines.gguf.classifier_files import write_classifier
from tests.engines.gguf.random_model import asking, engine_of, events_of
from tests.gguf_files import write_gguf

QUERY = "what is blue"
DOCUMENTS = ("the sky is blue", "a cats", "grass is green", "the sea", "what")


@pytest.fixture(scope="module", params=[True, None], ids=["new", "old"])
def weights(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("rankers")
    return folder, write_classifier(folder / "ranker.gguf", adds_eos=request.param)


@pytest.fixture
async def engine(weights: tuple[Path, object]) -> AsyncGenerator[GgufEngine, None]:
    async with engine_of(weights[0], num_slots=3) as engine:
        yield engine


async def scored(
    engine: GgufEngine, documents: Sequence[str] = DOCUMENTS, **fields: object
) -> Reranking:
    given = {"id": "r1", "model": "ranker", "query": QUERY, "documents": documents} | fields
    return await engine.rerank(RerankRequest(**given))  # type: ignore[arg-type]


def ids(text: str) -> list[int]:
    words = text.replace("cats", "cat ##s").split()
    return [files.WORDS.index(word) for word in words]


def pair(document: str) -> list[int]:
    cls, sep = (files.WORDS.index(mark) for mark in ("[CLS]", "[SEP]"))
    return [cls, *ids(QUERY), sep, *ids(document), sep]


def expected(weights: dict[str, np.ndarray]) -> list[float]:
    """What transformers makes of the same weights; GGUF's BERT knows one kind of segment."""
    config = BertConfig(
        vocab_size=len(files.WORDS),
        hidden_size=files.WIDTH,
        num_hidden_layers=files.LAYERS,
        num_attention_heads=files.HEADS,
        intermediate_size=files.FEED_FORWARD,
        max_position_embeddings=files.CONTEXT,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    with torch.inference_mode():
        logits = [model(torch.tensor([pair(text)])).logits.item() for text in DOCUMENTS]
    return [1 / (1 + math.exp(-logit)) for logit in logits]


async def test_scores_are_those_of_transformers_and_every_pair_is_counted(
    engine: GgufEngine, weights: tuple[Path, dict[str, np.ndarray]]
) -> None:
    reranking = await scored(engine)

    wanted = expected(weights[1])
    assert max(wanted) - min(wanted) > 0.1
    np.testing.assert_allclose(reranking.scores, wanted, atol=5e-3)
    assert reranking.usage.prompt_tokens == sum(len(pair(text)) for text in DOCUMENTS)


async def test_a_documents_score_does_not_depend_on_its_company(engine: GgufEngine) -> None:
    together = await scored(engine)
    alone = [await scored(engine, [text]) for text in DOCUMENTS]
    at_once = await asyncio.gather(*(scored(engine) for _ in range(4)))

    np.testing.assert_allclose(together.scores, [one.scores[0] for one in alone], atol=1e-5)
    for other in at_once:
        np.testing.assert_allclose(together.scores, other.scores, atol=1e-5)


async def test_what_spells_a_mark_is_text(engine: GgufEngine) -> None:
    marked = await scored(engine, ["blue [SEP] blue"])

    assert marked.usage.prompt_tokens > len(pair("blue blue")) + 1


async def test_a_pair_that_is_too_long_is_named_and_refused(engine: GgufEngine) -> None:
    with pytest.raises(ContextTooLong) as caught:
        await scored(engine, ["blue", "blue " * files.CONTEXT])

    assert caught.value.param == "documents[1]"


async def test_a_ranker_only_ranks_and_says_so(engine: GgufEngine) -> None:
    assert isinstance(engine, Reranks)
    [info] = [info for info in await engine.models() if info.name == "ranker"]
    assert info.capabilities == {Capability.RERANK}
    with pytest.raises(Unsupported, match="scores text and writes none"):
        await events_of(engine, asking(model="ranker"))
    with pytest.raises(Unsupported, match="scores texts and embeds none"):
        await engine.embed(EmbedRequest(id="e", model="ranker", inputs=["blue"]))
    with pytest.raises(ModelNotFound):
        await scored(engine, model="nothing")


async def test_a_model_that_writes_or_sorts_into_kinds_does_not_rank(tmp_path: Path) -> None:
    write_gguf(tmp_path / "random.gguf")
    write_classifier(tmp_path / "kinds.gguf", labels=("good", "bad", "ugly"))

    async with engine_of(tmp_path) as engine:
        with pytest.raises(Unsupported, match="'random' does not rerank"):
            await scored(engine, model="random")
        with pytest.raises(Unsupported, match="sorts texts into 3 kinds and gives no score"):
            await scored(engine, model="kinds")
