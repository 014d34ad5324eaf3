"""Texts are tokenized beside each other, and one that cannot fit is known by its length."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engines.errors import ContextTooLong, Unavailable
from engines.gguf.engine import GgufEngine
from engines.gguf.native import llama
from engines.gguf.runner import Runner
from engines.gguf.vocabulary import Vocabulary
from engines.protocol import EmbedRequest
from engines.reranking import RerankRequest
from tests.engines.gguf.classifier_files import write_classifier
from tests.engines.gguf.random_model import asking, engine_of, events_of
from tests.gguf_files import write_gguf

LONG = "a long text"


class Held:
    """llama.cpp, but for one text that takes until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.let_go = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(llama(), name)

    def llama_tokenize(self, vocabulary: Any, text: bytes, *others: Any) -> int:
        if text == LONG.encode():
            self.began.set()
            assert self.let_go.wait(60)
        return llama().llama_tokenize(vocabulary, text, *others)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_gguf(folder / "random.gguf", layers=1, context_tokens=64)
    write_classifier(folder / "ranker.gguf", adds_eos=True)
    return folder


@pytest.fixture
def runner(models: Path) -> Iterator[Runner]:
    runner = Runner(models / "random.gguf")
    yield runner
    runner.close()


@pytest.fixture
def held(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(runner.vocabulary, "_binding", held)
    return held


def tokens_of(vocabulary: Vocabulary, text: str) -> list[int]:
    return vocabulary.tokenize(text, parse_special=False)


def test_a_text_does_not_wait_for_another(runner: Runner, held: Held) -> None:
    expected = tokens_of(runner.vocabulary, "hello")
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(tokens_of, runner.vocabulary, LONG)
        assert held.began.wait(60)
        short = threads.submit(tokens_of, runner.vocabulary, "hello")
        try:
            assert short.result(timeout=30) == expected
            assert not long.done()
        finally:
            held.let_go.set()
        assert long.result() == tokens_of(runner.vocabulary, LONG)


def test_a_vocabulary_is_kept_until_its_last_text_is_done(runner: Runner, held: Held) -> None:
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(tokens_of, runner.vocabulary, LONG)
        assert held.began.wait(60)
        forgetting = threads.submit(runner.vocabulary.forget)
        try:
            with pytest.raises(Unavailable, match="unloaded"):
                while not forgetting.done():
                    tokens_of(runner.vocabulary, "hello")
            assert not forgetting.done()
        finally:
            held.let_go.set()
        assert long.result()
        forgetting.result(timeout=30)


def test_no_text_has_fewer_tokens_than_is_said_of_it(runner: Runner) -> None:
    vocabulary = runner.vocabulary
    longest = max(len(piece) for piece in vocabulary.pieces)
    texts = [piece.decode("utf-8", "ignore") * 50 for piece in vocabulary.pieces]
    texts += ["hello" * 40, "wörld \U0001f600" * 20, "\n \t" * 50, "", "\ud800"]

    for text in texts:
        least = vocabulary.least_tokens(text)
        assert least is not None
        for parse_special in (True, False):
            assert len(vocabulary.tokenize(text, parse_special=parse_special)) >= least
    assert vocabulary.least_tokens("x" * (longest * 9 + 1)) == 10


def test_nothing_is_said_of_texts_whose_words_may_become_one_token(models: Path) -> None:
    runner = Runner(models / "ranker.gguf")

    assert runner.vocabulary.least_tokens("x" * 9999) is None
    runner.close()


def refuse(*args: Any, **kwargs: Any) -> list[int]:
    raise AssertionError("a text was tokenized that cannot fit")


async def loaded(models: Path, engine: GgufEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.load("random")
    await engine.load("ranker")
    monkeypatch.setattr(Vocabulary, "tokenize", refuse)


async def test_a_text_that_cannot_fit_is_refused_and_not_tokenized(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "word and " * 10_000
    asked = {
        "messages": asking(long),
        "prompt": asking(prompt=long, messages=[]),
    }
    async with engine_of(models) as engine:
        await loaded(models, engine, monkeypatch)
        for param, request in asked.items():
            for answering in (events_of(engine, request), engine.render(request)):
                with pytest.raises(ContextTooLong, match=r"the prompt has at least \d+ and") as no:
                    await answering
                assert (no.value.param, no.value.context_tokens) == (param, 64)
                assert no.value.prompt_tokens > 64
        with pytest.raises(ContextTooLong, match="at least") as no:
            await engine.embed(EmbedRequest(id="1", model="random", inputs=["hello", long]))
        assert no.value.param == "input"
        for query, document in (("what", long), (long, "the sky")):
            reranking = RerankRequest(
                id="1", model="ranker", query=query, documents=[document, document]
            )
            with pytest.raises(ContextTooLong, match="bytes, more than 1024 for each") as no:
                await engine.rerank(reranking)
            assert no.value.param == "documents[0]"


async def test_tokens_of_a_text_that_cannot_fit_are_counted_all_the_same(models: Path) -> None:
    text = "hello" * 60_000

    async with engine_of(models) as engine:
        assert await engine.count_tokens(asking(prompt=text, messages=[])) == 60_000
