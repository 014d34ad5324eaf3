"""What a model gives for a text as a whole: a vector, or how well it answers a question."""

from collections.abc import Sequence

import numpy as np

from engines.chat.prompting import check_fits, checked_ids, filled_tokens
from engines.errors import ContextTooLong, RequestRefused, Unavailable, Unsupported
from engines.gguf.embedding import EmbedJob, Vectors, normalized
from engines.gguf.loaded_model import LoadedModel
from engines.outbox import Mailbox
from engines.protocol import Embeddings, EmbedRequest, Usage
from engines.reranking import Reranking, RerankRequest

# Their last layer is a softmax over answers, of which the first is "yes".
_SAYING_YES = ("qwen3", "qwen3vl")


async def embedded(model: LoadedModel, request: EmbedRequest) -> tuple[Embeddings, list[int]]:
    """A vector of length one for each input, and how many tokens each has."""
    if model.scores_texts:
        raise Unsupported(f"model {request.model!r} scores texts and embeds none", param="model")
    if request.dimensions not in (None, model.width):
        raise Unsupported(
            f"this model's vectors have {model.width} dimensions and it was not trained "
            f"to have them cut to {request.dimensions}: leave dimensions out",
            param="dimensions",
        )
    for text in request.inputs:
        if isinstance(text, str):
            check_fits(model, [text], model.embedding.context_tokens, "input")
    inputs = [await _embed_tokens(model, text) for text in request.inputs]
    lengths = [len(tokens) for tokens in inputs]
    vectors = await _pooled(model, inputs)
    usage = Usage(prompt_tokens=sum(lengths))
    return Embeddings(vectors=normalized(vectors), usage=usage), lengths


async def reranked(model: LoadedModel, request: RerankRequest) -> tuple[Reranking, list[int]]:
    """A score for each document, and how many tokens it has together with the query."""
    if not model.scores_texts:
        raise Unsupported(f"model {request.model!r} does not rerank", param="model")
    says_yes = model.vocabulary.metadata.get("general.architecture") in _SAYING_YES
    if (model.num_labels == 1) is says_yes:
        raise Unsupported(
            f"model {request.model!r} sorts texts into {model.num_labels} kinds and gives no score",
            param="model",
        )
    inputs = await _pairs(model, request)
    lengths = [len(tokens) for tokens in inputs]
    first = (await _pooled(model, inputs))[:, 0].astype(np.float64)
    if not np.isfinite(first).all():
        raise Unavailable("the model gave a score that is no number")
    scores = first if says_yes else _squashed(first)
    return Reranking(scores=scores.tolist(), usage=Usage(prompt_tokens=sum(lengths))), lengths


def _squashed(logits: np.ndarray) -> np.ndarray:
    """The logistic function, which cross-encoders are trained under."""
    small = np.exp(-np.abs(logits))  # never overflows
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


async def _pooled(model: LoadedModel, inputs: Sequence[Sequence[int]]) -> Vectors:
    job = EmbedJob(inputs=inputs, mailbox=Mailbox())
    place = model.line.join(num_running=model.num_running)
    model.submit(job)
    try:
        return await job.mailbox.get()
    finally:
        place.leave()
        model.cancel(job)
        job.mailbox.close()


async def _embed_tokens(model: LoadedModel, text: str | Sequence[int]) -> Sequence[int]:
    if isinstance(text, str):
        tokens = await model.tokenize(text, parse_special=False, add_special=True)
    else:
        tokens = checked_ids(model, text, "input")
    if not tokens:
        raise RequestRefused("an input to embed has no tokens", param="input")
    _check_length(model, tokens, "input")
    return tokens


async def _pairs(model: LoadedModel, request: RerankRequest) -> list[Sequence[int]]:
    """The query with each document, as the model was trained to read them."""
    for place, document in enumerate(request.documents):
        both = [request.query, document]
        check_fits(model, both, model.embedding.context_tokens, f"documents[{place}]")
    pattern = model.vocabulary.rerank_pattern
    query = await model.tokenize(request.query, parse_special=False)
    pairs: list[Sequence[int]] = []
    for place, document in enumerate(request.documents):
        if pattern is not None:
            texts = {"query": request.query, "document": document}
            tokens = await filled_tokens(model, pattern, texts)
        else:
            found = await model.tokenize(document, parse_special=False)
            tokens = model.vocabulary.paired(query, found)
        if not tokens:
            raise RequestRefused("query and document have no tokens", param="documents")
        _check_length(model, tokens, f"documents[{place}]")
        pairs.append(tokens)
    return pairs


def _check_length(model: LoadedModel, tokens: Sequence[int], param: str) -> None:
    limit = model.embedding.context_tokens
    if len(tokens) > limit:
        raise ContextTooLong(prompt_tokens=len(tokens), context_tokens=limit, param=param)
