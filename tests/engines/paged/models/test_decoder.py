"""Every family against transformers, from the same files: logits and greedy tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from engines.paged.checkpoint import Checkpoint
from engines.paged.models.decoder import Decoder
from engines.paged.weights import load
from tests.engines.paged.forward import Driver, Running
from tests.engines.paged.random_checkpoints import DECODERS, reference, write

NUM_NEW = 12


@dataclass
class Pair:
    """The same checkpoint in both implementations."""

    ours: Decoder
    theirs: PreTrainedModel

    def expected(self, tokens: list[int]) -> Tensor:
        with torch.inference_mode():
            return self.theirs(torch.tensor([tokens]), use_cache=False).logits[0]

    def expected_greedy(self, prompt: list[int], num_tokens: int) -> list[int]:
        tokens = list(prompt)
        for _ in range(num_tokens):
            tokens.append(int(self.expected(tokens)[-1].argmax()))
        return tokens[len(prompt) :]

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        vocab_size = self.ours.shape.vocab_size
        return torch.randint(3, vocab_size, (length,), generator=generator).tolist()


@pytest.fixture(scope="module", params=DECODERS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("checkpoint")
    write(DECODERS[request.param], folder)
    ours = load(Checkpoint(folder), "cpu", torch.float32)
    assert isinstance(ours, Decoder)
    yield Pair(ours, reference(folder))


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))


def test_a_prompt_in_one_step_has_the_logits_of_transformers(pair: Pair):
    prompt = pair.prompt(37)

    _, logits = Driver(pair.ours).prompt(prompt)

    assert_same(logits, pair.expected(prompt))


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_a_prompt_in_chunks_has_the_same_logits(pair: Pair, chunk: int):
    prompt = pair.prompt(45, seed=1)

    _, logits = Driver(pair.ours).prompt(prompt, chunk=chunk)

    assert_same(logits, pair.expected(prompt))


def test_greedy_decoding_gives_the_same_tokens(pair: Pair):
    prompt = pair.prompt(33, seed=2)

    found = Driver(pair.ours).greedy(prompt, NUM_NEW, chunk=20)

    assert found == pair.expected_greedy(prompt, NUM_NEW)


def test_a_decode_a_chunk_and_a_fresh_prompt_share_a_step(pair: Pair):
    texts = [pair.prompt(length, seed=length) for length in (26, 50, 19)]
    driver = Driver(pair.ours)
    decoding, chunked, fresh = (Running(text) for text in texts)
    driver.step([(decoding, 25), (chunked, 17)])

    logits = driver.step([(chunked, 21), (decoding, 1), (fresh, 19)], padding=2)

    of_chunk, of_decode, of_fresh = logits.split([21, 1, 19])
    assert_same(of_chunk, pair.expected(texts[1])[17:38])
    assert_same(of_decode, pair.expected(texts[0])[25:])
    assert_same(of_fresh, pair.expected(texts[2]))


def test_decodes_of_many_sequences_share_a_step_with_padding(pair: Pair):
    texts = [pair.prompt(length, seed=length) for length in (3, 18, 34)]
    driver = Driver(pair.ours)
    rows = [Running(text) for text in texts]
    driver.step([(row, len(row.tokens) - 1) for row in rows])

    logits = driver.step([(row, 1) for row in rows], padding=1)

    assert_same(logits, torch.stack([pair.expected(text)[-1] for text in texts]))


def test_a_sequence_goes_on_from_blocks_that_another_one_computed(pair: Pair):
    shared, block_size = pair.prompt(38, seed=5), 16
    mine = shared[: 2 * block_size] + pair.prompt(6, seed=6)
    driver = Driver(pair.ours, block_size=block_size)
    other, _ = driver.prompt(shared)

    sequence = Running(mine, list(other.blocks[:2]), num_computed=2 * block_size)
    logits = driver.step([(sequence, 6)])

    assert_same(logits, pair.expected(mine)[2 * block_size :])


@pytest.mark.parametrize("block_size", [32, 64])
def test_the_size_of_a_block_changes_nothing(pair: Pair, block_size: int):
    prompt = pair.prompt(40, seed=8)

    _, logits = Driver(pair.ours, block_size=block_size).prompt(prompt, chunk=13)

    assert_same(logits, pair.expected(prompt))
