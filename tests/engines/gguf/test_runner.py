import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.errors import Unavailable
from engines.gguf import native
from engines.gguf.runner import Aborted, CacheFull, Row, Runner, Shape
from tests.gguf_files import write_gguf

SHAPE = Shape(num_slots=3, context_tokens=512, pool_tokens=1536, exact=True, max_batch_tokens=256)
PROMPT = [7 + at % 200 for at in range(120)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_gguf(folder / "random.gguf", width=128, feed_forward=352, layers=3)


@pytest.fixture
def runner(path: Path) -> Iterator[Runner]:
    runner = Runner(path)
    runner.open_cache(SHAPE)
    yield runner
    runner.close()


def rows(tokens: list[int], *, slot: int, start: int = 0) -> list[Row]:
    last = len(tokens) - 1
    return [Row(token, start + at, slot, at == last) for at, token in enumerate(tokens)]


def last_logits(runner: Runner, tokens: list[int], *, slot: int, start: int = 0) -> np.ndarray:
    runner.decode(rows(tokens, slot=slot, start=start))
    return runner.logits(len(tokens) - 1).copy()


def test_logits_are_the_same_bits_in_any_chunks_slot_company_and_number_of_threads(
    runner: Runner,
) -> None:
    alone = last_logits(runner, PROMPT, slot=0)

    last_logits(runner, PROMPT[:50], slot=1)
    chunked = last_logits(runner, PROMPT[50:], slot=1, start=50)
    runner.set_threads(2)
    crowd = [*rows([9] * 30, slot=1, start=120), *rows(PROMPT, slot=2)]
    runner.decode(crowd)
    in_company = runner.logits(len(crowd) - 1).copy()
    runner.clear(1)
    runner.copy_prefix(0, 1, 100)
    copied = last_logits(runner, PROMPT[100:], slot=1, start=100)

    for other in (chunked, in_company, copied):
        assert np.array_equal(alone, other)


def test_logits_of_a_long_context_are_the_same_bits_one_token_at_a_time_and_at_once(
    path: Path,
) -> None:
    # Past 512 cells, and from some rows on, ggml may choose other ways through flash attention.
    runner = Runner(path)
    runner.open_cache(
        SHAPE._replace(context_tokens=1024, pool_tokens=3 * 1024, max_batch_tokens=1024)
    )
    prompt = [7 + at % 200 for at in range(700)]
    alone = last_logits(runner, prompt, slot=0)

    runner.set_threads(2)
    last_logits(runner, prompt[:699], slot=1)
    one_row = last_logits(runner, prompt[699:], slot=1, start=699)
    last_logits(runner, prompt[:699], slot=2)
    crowd = [Row(9, 700, 1, True), Row(prompt[699], 699, 2, True)]
    runner.decode(crowd)
    in_company = runner.logits(1).copy()
    runner.close()

    assert np.array_equal(alone, one_row)
    assert np.array_equal(alone, in_company)


def test_what_was_truncated_is_forgotten(runner: Runner) -> None:
    fresh = last_logits(runner, PROMPT, slot=0)

    last_logits(runner, [9] * 40, slot=0, start=120)
    assert runner.truncate(0, 60)
    again = last_logits(runner, PROMPT[60:], slot=0, start=60)

    assert np.array_equal(fresh, again)


def test_an_aborted_step_can_be_done_again(runner: Runner) -> None:
    runner.abort()
    with pytest.raises(Aborted):
        runner.decode(rows(PROMPT, slot=0))

    runner.resume()
    runner.truncate(0, 0)
    after = last_logits(runner, PROMPT, slot=0)

    assert np.array_equal(after, last_logits(runner, PROMPT, slot=1))


def test_a_full_pool_is_said_and_nothing_is_lost(path: Path) -> None:
    runner = Runner(path)
    runner.open_cache(SHAPE._replace(exact=False, pool_tokens=256))
    before = last_logits(runner, PROMPT, slot=0)

    with pytest.raises(CacheFull):
        runner.decode(rows([9] * 200, slot=1))

    runner.clear(1)
    assert runner.truncate(0, 119)
    assert np.allclose(last_logits(runner, PROMPT[119:], slot=0, start=119), before, atol=0.2)
    runner.close()


@pytest.mark.parametrize(
    "row",
    [
        Row(-1, 0, 0, wants_logits=True),
        Row(10**6, 0, 0, wants_logits=True),
        Row(7, -1, 0, wants_logits=True),
        Row(7, 512, 0, wants_logits=True),
        Row(7, 0, -1, wants_logits=True),
        Row(7, 0, 3, wants_logits=True),
    ],
)
def test_nothing_outside_of_the_cache_reaches_llama_cpp(runner: Runner, row: Row) -> None:
    with pytest.raises(ValueError, match="outside"):
        runner.decode([row])


def test_slots_and_lengths_outside_of_the_cache_are_refused(runner: Runner) -> None:
    for slot, length in ((-1, 0), (3, 0), (0, -1), (0, 513)):
        with pytest.raises(ValueError, match="outside"):
            runner.truncate(slot, length)
        with pytest.raises(ValueError, match="outside"):
            runner.copy_prefix(slot, 1, length)


def test_a_file_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a model")

    with pytest.raises(Unavailable, match=r"broken\.gguf.*magic"):
        Runner(path)


def test_a_load_can_be_given_up(path: Path) -> None:
    with pytest.raises(Unavailable):
        Runner(path, on_progress=lambda done: False)


def test_tokens_are_not_read_from_a_model_that_was_freed(path: Path) -> None:
    runner = Runner(path)
    runner.close()
    runner.close()

    with pytest.raises(Unavailable, match="unloaded"):
        runner.vocabulary.tokenize("hello", parse_special=True)


def test_texts_are_tokenized_in_any_thread(path: Path) -> None:
    runner = Runner(path)
    expected = runner.vocabulary.tokenize("hello in the hell <|im_end|>", parse_special=True)
    found: list[list[int]] = []

    def tokenize() -> None:
        for _ in range(200):
            found.append(
                runner.vocabulary.tokenize("hello in the hell <|im_end|>", parse_special=True)
            )

    threads = [threading.Thread(target=tokenize) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)

    assert found == [expected] * 800
    runner.close()


def test_tokens_spell_the_text_they_came_from(runner: Runner) -> None:
    text = "hello\n wörld \U0001f600 <|im_end|> \x00 end"

    for parse_special in (True, False):
        tokens = runner.vocabulary.tokenize(text, parse_special=parse_special)
        spelled = b"".join(runner.vocabulary.pieces[token] for token in tokens)
        assert spelled.decode() == text


def test_another_release_of_the_binding_is_noticed() -> None:
    class Fake:
        """A binding in which one struct lost a field and one function changed."""

        def __getattr__(self, name: str) -> object:
            real = getattr(native.llama(), name)
            if name == "llama_batch":
                return type("llama_batch", (), {"_fields_": [("n_tokens", int)]})
            if name == "llama_decode":
                return type("llama_decode", (), {"argtypes": [int]})
            return real

    wrong = native.mismatches(Fake())

    assert "llama_batch has no field token" in wrong
    assert "llama_decode takes 1 arguments, not 2" in wrong
    assert native.mismatches(native.llama()) == []


def test_a_library_built_with_openmp_is_recognized(tmp_path: Path) -> None:
    library = tmp_path / "libggml-cpu.so"
    library.write_bytes(b"\x7fELF...libgomp.so.1...")
    assert native.uses_openmp(tmp_path)

    library.write_bytes(b"\x7fELF...libm.so.6...")
    assert not native.uses_openmp(tmp_path)


@pytest.mark.parametrize("exact", [True, False])
def test_a_saved_slot_goes_on_in_another_context_as_if_nothing_had_happened(
    path: Path, exact: bool
) -> None:
    shape = SHAPE._replace(exact=exact)
    first = Runner(path)
    first.open_cache(shape)
    first.decode(rows(PROMPT[:100], slot=1))
    state = first.save(1, 10**9)
    expected = last_logits(first, PROMPT[100:], slot=1, start=100)
    assert first.save(1, 1000) is None
    first.close()

    second = Runner(path)
    second.open_cache(shape)
    if not exact:
        second.decode(rows([9] * 30, slot=0))
    assert state is not None
    assert second.restore(2, state, 100)
    restored = last_logits(second, PROMPT[100:], slot=2, start=100)
    second.close()

    if exact:
        assert np.array_equal(expected, restored)
    else:
        assert np.allclose(expected, restored, atol=0.05)


def test_what_does_not_fit_or_is_not_whole_leaves_the_slot_empty(
    runner: Runner, path: Path
) -> None:
    runner.decode(rows(PROMPT, slot=0))
    state = runner.save(0, 10**9)
    assert state is not None

    assert not runner.restore(1, state, 99)
    assert not runner.restore(1, state[: len(state) // 2], 120)
    fresh = last_logits(runner, PROMPT, slot=1)
    assert np.array_equal(fresh, last_logits(runner, PROMPT, slot=2))

    small = Runner(path)
    small.open_cache(SHAPE._replace(exact=False, pool_tokens=256, context_tokens=256))
    small.decode(rows([9] * 200, slot=0))
    assert not small.restore(1, state, 120)
    small.close()
