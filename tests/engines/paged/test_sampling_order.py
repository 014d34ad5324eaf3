"""One request means the same on both local engines: held to llama.cpp's own chain."""

from typing import Any

import msgspec
import pytest
import torch

from engines.gguf.sampler import Candidates
from engines.gguf.sampler import Sampler as GgufSampler
from engines.paged.sampler import Sampler
from engines.protocol import Sampling

VOCAB = 50


def sampler_of(end_ids: list[int]) -> Sampler:
    pieces = [b""] * VOCAB
    return Sampler(8, VOCAB, torch.device("cpu"), end_ids=end_ids, pieces=pieces)


def logits_of(seed: int = 0) -> torch.Tensor:
    return torch.randn((1, VOCAB), generator=torch.Generator().manual_seed(seed)) * 2


class Computed:
    """A step of the gguf engine that was computed elsewhere."""

    context = None

    def __init__(self, logits: torch.Tensor) -> None:
        self._logits = logits.numpy()

    def logits(self, row: int) -> Any:
        return self._logits[row]


class Anything:
    """A constraint that allows every token; with one, the gguf sampler takes any logits."""

    is_finished = False

    def allows(self, token: int, /) -> bool:
        return True

    def accept(self, token: int, /) -> None:
        pass

    def apply(self, logits: Any, /) -> None:
        raise AssertionError("everything is allowed")


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(repeat_penalty=1.3),
        Sampling(repeat_penalty=1.3, top_k=3),
        Sampling(repeat_penalty=0.8, frequency_penalty=0.05),
        Sampling(frequency_penalty=0.2),
        Sampling(presence_penalty=1.5),
        Sampling(presence_penalty=2.0, top_k=4),
        Sampling(presence_penalty=-1.0, frequency_penalty=0.3),
        Sampling(repeat_penalty=1.2, frequency_penalty=0.1, presence_penalty=0.1),
        Sampling(logit_bias={7: 4.0, 9: -50.0}, presence_penalty=0.5, top_k=5),
        Sampling(min_tokens=20, frequency_penalty=0.1),
        Sampling(ignore_eos=True, repeat_penalty=1.1),
    ],
    ids=str,
)
def test_what_changes_logits_means_the_same_to_the_gguf_engine(sampling: Sampling) -> None:
    ends = [3, 20]
    sampling = msgspec.structs.replace(sampling, temperature=0.0)
    room = Candidates(VOCAB)
    gguf = GgufSampler(sampling, end_ids=ends, room=room, max_tokens=500)
    sampler = sampler_of(ends)
    sampler.begin(4, sampling, num_prompt_tokens=0)
    sampler.begin(2, Sampling(temperature=0.0, presence_penalty=0.7), num_prompt_tokens=0)
    places = torch.tensor([2, 4])

    tokens: list[list[int]] = []
    for at in range(150):
        logits = logits_of(seed=at % 7)
        both = logits.repeat(2, 1)
        positions = torch.tensor([at, at])
        ours = sampler.sample(both, places, positions, None, at=[2, 4]).token_ids[1]
        theirs = gguf.sample(Computed(logits), 0, Anything())
        tokens.append([int(ours), theirs])
    gguf.close()

    assert [ours for ours, _ in tokens] == [theirs for _, theirs in tokens]
    assert len({ours for ours, _ in tokens}) > 3


def test_what_top_k_top_p_and_min_p_leave_is_the_same_to_the_gguf_engine() -> None:
    # So hot that whatever is left comes with nearly equal chance.
    cut = Sampling(temperature=1000.0, top_k=30, top_p=0.8, min_p=0.05)
    logits = logits_of() * 0.4
    gguf = GgufSampler(cut, end_ids=(), room=Candidates(VOCAB), max_tokens=500)
    sampler = sampler_of([])
    sampler.begin(0, cut, num_prompt_tokens=0)

    places = torch.zeros(300, dtype=torch.int64)
    positions = torch.arange(300)
    ours = set(sampler.sample_plain(logits.repeat(300, 1), places, positions).tolist())
    theirs = {gguf.sample(Computed(logits), 0, Anything()) for _ in range(300)}
    gguf.close()

    assert ours == theirs
    assert 5 < len(ours) < 30
