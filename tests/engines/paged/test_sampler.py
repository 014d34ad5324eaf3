from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from engines.errors import RequestRefused
from engines.gguf.sampler import Candidates
from engines.gguf.sampler import Sampler as GgufSampler
from engines.paged.sampler import SampledTokens, Sampler, logprobs_of
from engines.protocol import Sampling

VOCAB = 50
INF = float("inf")
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sampler() -> Sampler:
    return Sampler(8, VOCAB, "cpu")


def logits_of(num_rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn((num_rows, VOCAB), generator=torch.Generator().manual_seed(seed)) * 2


def step(
    sampler: Sampler, places: Sequence[int], logits: torch.Tensor | None = None, **mask: Any
) -> SampledTokens:
    logits = logits_of(len(places)) if logits is None else logits.clone()
    return sampler.sample(logits, torch.tensor(places), torch.full((len(places),), 9), **mask)


def answer(sampler: Sampler, place: int, count: int, logits: torch.Tensor) -> list[int]:
    """So many tokens, each from the same logits."""
    return [
        int(sampler.sample(logits.clone(), torch.tensor([place]), torch.tensor([at])).token_ids)
        for at in range(count)
    ]


def likeliest(logits: torch.Tensor) -> list[int]:
    return logits[0].argsort(descending=True).tolist()


def test_each_row_is_sampled_as_the_sequence_at_its_place_asked(sampler: Sampler) -> None:
    sampler.begin(5, GREEDY, ())
    sampler.begin(2, Sampling(temperature=1.0, top_k=1), ())
    sampler.begin(0, Sampling(temperature=2.0, seed=3), ())
    logits = logits_of(3)

    tokens = step(sampler, [2, 0, 5], logits).token_ids

    best = logits.argmax(-1)
    assert tokens[[0, 2]].tolist() == best[[0, 2]].tolist()
    assert sampler.last_tokens[[2, 0, 5]].tolist() == tokens.tolist()
    hot = {int(step(sampler, [0], row[None]).token_ids) for row in logits_of(40, seed=9)}
    assert len(hot) > 5


def test_unset_sampling_is_greedy_and_cuts_nothing(sampler: Sampler) -> None:
    sampler.begin(0, Sampling(), ())

    assert step(sampler, [0]).token_ids.item() == logits_of().argmax().item()


def test_a_seed_repeats_whatever_the_place_and_the_batch(sampler: Sampler) -> None:
    hot = Sampling(temperature=1.5, seed=7)
    sampler.begin(1, hot, ())
    sampler.begin(6, hot, ())
    sampler.begin(3, Sampling(temperature=1.5, seed=8), ())
    logits = logits_of()

    first = answer(sampler, 1, 30, logits)
    positions = torch.arange(30)
    together = sampler.draw(logits.repeat(30, 1), torch.full((30,), 6), positions)

    assert together.tolist() == first
    assert answer(sampler, 3, 30, logits) != first


def test_without_a_seed_two_answers_differ_and_any_integer_is_a_seed(sampler: Sampler) -> None:
    sampler.begin(0, Sampling(temperature=1.5), ())
    sampler.begin(1, Sampling(temperature=1.5), ())

    assert answer(sampler, 0, 30, logits_of()) != answer(sampler, 1, 30, logits_of())
    for place, seed in enumerate((-1, 2**63, 2**64 + 5, 5), start=2):
        sampler.begin(place, Sampling(temperature=1.5, seed=seed), ())
    same = answer(sampler, 4, 20, logits_of())
    assert same == answer(sampler, 5, 20, logits_of())
    assert same != answer(sampler, 3, 20, logits_of())


def test_draw_does_for_plain_rows_what_sample_does(sampler: Sampler) -> None:
    sampler.begin(0, Sampling(temperature=0.8, top_p=0.9, top_k=20, min_p=0.01, seed=1), ())
    sampler.begin(1, GREEDY, ())
    places = torch.tensor([0, 1, sampler.padding_place])
    positions = torch.tensor([4, 5, 0])

    drawn = sampler.draw(logits_of(3), places, positions)

    assert sampler.is_plain([0, 1])
    assert drawn.tolist() == sampler.sample(logits_of(3), places, positions).token_ids.tolist()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(repeat_penalty=1.1),
        Sampling(presence_penalty=0.5),
        Sampling(frequency_penalty=-0.5),
        Sampling(logit_bias={3: 1.0}),
        Sampling(min_tokens=4),
        Sampling(ignore_eos=True),
    ],
)
def test_what_draw_cannot_do_is_not_plain_until_it_ends(
    sampler: Sampler, sampling: Sampling
) -> None:
    sampler.begin(1, sampling, (9,))
    sampler.begin(2, GREEDY, (9,))

    assert not sampler.is_plain([2, 1])
    assert sampler.is_plain([2])
    sampler.end(1)
    sampler.end(1)
    assert sampler.is_plain([2, 1])


def test_a_place_starts_afresh_after_its_sequence_ended(sampler: Sampler) -> None:
    logits = logits_of()
    everything = Sampling(
        temperature=0.0, logit_bias={3: 90.0}, repeat_penalty=4.0, frequency_penalty=9.0
    )
    sampler.begin(0, everything, (1,), logprobs=2)
    assert answer(sampler, 0, 1, logits) == [3]

    sampler.end(0)
    sampler.begin(0, GREEDY, (1,))
    sampler.begin(1, everything, (1,))

    assert answer(sampler, 0, 3, logits) == likeliest(logits)[:1] * 3
    assert step(sampler, [0], logits).logprobs is None


def test_bias_and_ignored_ends_change_what_is_likeliest(sampler: Sampler) -> None:
    logits = logits_of()
    best = likeliest(logits)
    sampler.begin(0, Sampling(temperature=0.0, logit_bias={best[0]: -100.0}), ())
    sampler.begin(1, Sampling(temperature=0.0, logit_bias={best[40]: 100.0}), ())
    sampler.begin(2, Sampling(temperature=0.0, ignore_eos=True), best[:3])
    sampler.begin(3, GREEDY, best[:3])

    tokens = step(sampler, [3, 0, 1, 2], logits.repeat(4, 1)).token_ids

    assert tokens.tolist() == [best[0], best[1], best[40], best[3]]


def test_an_answer_does_not_end_before_its_min_tokens(sampler: Sampler) -> None:
    logits = logits_of()
    best = likeliest(logits)
    wordy = Sampling(temperature=0.0, min_tokens=3, logit_bias={best[0]: 1.0})

    sampler.begin(0, wordy, best[:1])
    sampler.begin(1, wordy, best[:1], answer_tokens=[5, 5])

    assert answer(sampler, 0, 5, logits) == [best[1]] * 3 + [best[0]] * 2
    assert answer(sampler, 1, 2, logits) == [best[1], best[0]]


@pytest.mark.parametrize("token", [-1, VOCAB, 2**40])
def test_a_bias_on_a_token_that_does_not_exist_is_refused(sampler: Sampler, token: int) -> None:
    with pytest.raises(RequestRefused, match=f"token {token} does not exist") as refused:
        sampler.begin(0, Sampling(logit_bias={token: 1.0}), ())

    assert refused.value.param == "logit_bias"
    assert sampler.is_plain([0])


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
def test_what_changes_logits_means_the_same_to_the_gguf_engine(
    sampler: Sampler, sampling: Sampling
) -> None:
    ends = [3, 20]
    sampling = msgspec.structs.replace(sampling, temperature=0.0)
    room = Candidates(VOCAB)
    gguf = GgufSampler(sampling, end_ids=ends, room=room, max_tokens=500)
    sampler.begin(4, sampling, ends)
    sampler.begin(2, Sampling(temperature=0.0, presence_penalty=0.7), ())

    tokens: list[list[int]] = []
    for at in range(150):
        logits = logits_of(seed=at % 7)
        ours = step(sampler, [2, 4], logits.repeat(2, 1)).token_ids[1]
        theirs = gguf.sample(None, 0, logits[0].numpy(), Anything())
        tokens.append([int(ours), theirs])
    gguf.close()

    assert [ours for ours, _ in tokens] == [theirs for _, theirs in tokens]
    assert len({ours for ours, _ in tokens}) > 3


def test_what_top_k_top_p_and_min_p_leave_is_the_same_to_the_gguf_engine(
    sampler: Sampler,
) -> None:
    # So hot that whatever is left comes with nearly equal chance.
    cut = Sampling(temperature=1000.0, top_k=30, top_p=0.8, min_p=0.05)
    logits = logits_of() * 0.4
    gguf = GgufSampler(cut, end_ids=(), room=Candidates(VOCAB), max_tokens=500)
    sampler.begin(0, cut, ())

    ours = set(answer(sampler, 0, 300, logits))
    theirs = {gguf.sample(None, 0, logits[0].numpy(), Anything()) for _ in range(300)}
    gguf.close()

    assert ours == theirs
    assert 5 < len(ours) < 30


def test_a_token_may_come_again_when_it_is_64_tokens_back() -> None:
    logits = torch.arange(80.0, 0.0, -1.0)[None]
    varied = Sampling(temperature=0.0, repeat_penalty=1000.0)
    sampler = Sampler(1, 80, "cpu")
    sampler.begin(0, varied, ())
    gguf = GgufSampler(varied, end_ids=(), room=Candidates(80), max_tokens=500)

    ours = answer(sampler, 0, 140, logits)
    theirs = [gguf.sample(None, 0, logits[0].numpy(), Anything()) for _ in range(140)]
    gguf.close()

    assert ours == theirs
    assert ours[:67] == [*range(65), 0, 1]


def test_a_preempted_answer_goes_on_with_its_penalties(sampler: Sampler) -> None:
    logits = logits_of()
    penalized = Sampling(temperature=0.0, repeat_penalty=1.2, frequency_penalty=0.1)
    sampler.begin(0, penalized, ())
    whole = answer(sampler, 0, 160, logits)

    sampler.end(0)
    sampler.begin(3, penalized, (), answer_tokens=whole[:100])

    assert answer(sampler, 3, 60, logits) == whole[100:]


def bits_of(allowed: Sequence[int]) -> torch.Tensor:
    bits = np.zeros(-(-VOCAB // 32) * 32, np.uint8)
    bits[list(allowed)] = 1
    return torch.from_numpy(np.packbits(bits, bitorder="little").view(np.int32).copy())


def test_a_mask_leaves_only_what_the_grammar_allows(sampler: Sampler) -> None:
    for place in range(4):
        sampler.begin(place, Sampling(temperature=3.0, seed=place), ())
    masks = torch.stack((bits_of([4, 49]), bits_of([33])))

    for seed in range(10):
        logits = logits_of(4, seed)
        tokens = step(sampler, [0, 1, 2, 3], logits, mask=masks, mask_rows=torch.tensor([2, 0]))
        whole = step(sampler, [1, 3], logits[:2], mask=masks)

        assert tokens.token_ids[2].item() in (4, 49)
        assert tokens.token_ids[0].item() == 33
        assert whole.token_ids[0].item() in (4, 49)
        assert whole.token_ids[1].item() == 33


def test_logprobs_are_the_models_own_whatever_was_changed(sampler: Sampler) -> None:
    logits = logits_of(2)
    changed = Sampling(temperature=0.5, logit_bias={7: 100.0}, presence_penalty=1.0)
    sampler.begin(0, changed, (), logprobs=3)
    sampler.begin(1, GREEDY, (), logprobs=0)

    sampled = step(sampler, [0, 1], logits, mask=bits_of([7])[None], mask_rows=torch.tensor([0]))

    expected = logits.double().log_softmax(-1)
    assert sampled.logprobs is not None
    assert sampled.token_ids[0] == 7
    assert not sampler.is_plain([1])
    chosen = expected.gather(1, sampled.token_ids[:, None])[:, 0]
    torch.testing.assert_close(sampled.logprobs.chosen.double(), chosen, rtol=1e-5, atol=1e-5)
    best = expected.topk(3)
    assert sampled.logprobs.top_ids.tolist() == best.indices.tolist()
    torch.testing.assert_close(sampled.logprobs.top.double(), best.values, rtol=1e-5, atol=1e-5)


def test_of_equally_likely_tokens_the_lower_id_comes_first() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0, 5.0, 5.0, 1.0]])

    found = logprobs_of(logits, torch.tensor([1]), 4)

    assert found.top_ids[0, :3].tolist() == [1, 3, 4]
    assert found.top_ids[0, 3].item() in (2, 5)
    assert logprobs_of(logits, torch.tensor([1]), 99).top_ids.shape == (1, 6)
    assert logprobs_of(logits, torch.tensor([1]), 0).top.shape == (1, 0)


def test_many_penalized_sequences_come_and_go(sampler: Sampler) -> None:
    logits = logits_of()
    penalized = Sampling(temperature=0.0, presence_penalty=100.0)
    for _ in range(3):
        for place in range(8):
            sampler.begin(place, penalized, ())
        rounds = [step(sampler, range(8), logits.repeat(8, 1)).token_ids for _ in range(3)]
        for place in range(8):
            sampler.end(place)

        assert [tokens.tolist() for tokens in rounds] == [[t] * 8 for t in likeliest(logits)[:3]]
