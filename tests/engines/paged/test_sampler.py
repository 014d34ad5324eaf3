"""What a request asks of its next token, in any place of any batch."""

import pytest
import torch
from torch import Tensor

from engines.paged.sampler import REPEAT_WINDOW, Sampler
from engines.protocol import Sampling

VOCAB = 50
END = 7
GREEDY = Sampling(temperature=0.0)


def sampler() -> Sampler:
    pieces = [f"t{at} ".encode() for at in range(VOCAB)]
    return Sampler(6, VOCAB, torch.device("cpu"), end_ids=[END], pieces=pieces)


def logits_of(**scores: float) -> Tensor:
    """One row of logits, zero but for those that are named: t5=2.0."""
    row = torch.zeros((1, VOCAB))
    for name, score in scores.items():
        row[0, int(name[1:])] = score
    return row


def next_token(
    one: Sampler, logits: Tensor, *, place: int = 0, position: int = 10, masks: Tensor | None = None
) -> int:
    places, positions = torch.tensor([place]), torch.tensor([position])
    sampled = one.sample(logits.clone(), places, positions, masks, at=[place])
    return int(sampled.token_ids[0])


def test_greedy_takes_the_likeliest_and_the_device_remembers_it() -> None:
    one = sampler()
    one.begin(2, GREEDY, num_prompt_tokens=10)

    token = next_token(one, logits_of(t5=2.0, t9=3.0), place=2)

    assert token == 9
    assert one.last_tokens[2] == 9


def test_an_answer_may_not_end_before_min_tokens_or_ever() -> None:
    one = sampler()
    logits = logits_of(t7=5.0, t3=1.0)
    one.begin(0, Sampling(temperature=0.0, min_tokens=2), num_prompt_tokens=10)
    one.begin(1, Sampling(temperature=0.0, ignore_eos=True), num_prompt_tokens=10)

    ends = [next_token(one, logits, position=at) for at in (10, 11, 12)]
    never = next_token(one, logits, place=1, position=10_000)

    assert ends == [3, 3, END]
    assert never == 3
    assert one.is_plain([0, 1])


def test_bias_and_mask_come_before_the_choice() -> None:
    one = sampler()
    one.begin(0, Sampling(temperature=0.0, logit_bias={4: 10.0, 9: -100.0}), num_prompt_tokens=1)
    only_three = torch.tensor([[1 << 3, 0]], dtype=torch.int32)

    assert next_token(one, logits_of(t9=8.0, t3=1.0)) == 4
    assert next_token(one, logits_of(t9=8.0, t3=1.0), masks=only_three) == 3
    assert not one.is_plain([0])
    one.end(0)
    assert one.is_plain([0])


def test_penalties_count_the_answer_and_forget_what_is_out_of_the_window() -> None:
    one = sampler()
    one.begin(0, Sampling(temperature=0.0, repeat_penalty=2.0), num_prompt_tokens=10)
    logits = logits_of(t5=3.0, t6=2.0)

    first, second = (next_token(one, logits, position=at) for at in (10, 11))
    assert (first, second) == (5, 6)
    for at in range(12, 12 + REPEAT_WINDOW):
        next_token(one, logits_of(t20=9.0), position=at)

    assert next_token(one, logits, position=12 + REPEAT_WINDOW) == 5


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0.0, presence_penalty=0.6), [5, 6, 5, 5]),
        (Sampling(temperature=0.0, frequency_penalty=0.6), [5, 6, 5, 6]),
    ],
)
def test_presence_is_taken_once_and_frequency_each_time(
    sampling: Sampling, expected: list[int]
) -> None:
    one = sampler()
    one.begin(0, sampling, num_prompt_tokens=10)

    tokens = [next_token(one, logits_of(t5=3.0, t6=2.5), position=at) for at in range(10, 14)]

    assert tokens == expected


def test_a_preempted_answer_goes_on_with_the_penalties_it_had() -> None:
    sampling = Sampling(temperature=0.0, frequency_penalty=0.6, repeat_penalty=1.1)
    whole = sampler()
    whole.begin(0, sampling, num_prompt_tokens=10)
    logits = logits_of(t5=3.0, t6=2.5, t8=2.0)
    expected = [next_token(whole, logits, position=at) for at in range(10, 20)]

    parts = sampler()
    parts.begin(1, sampling, num_prompt_tokens=10)
    tokens = [next_token(parts, logits, place=1, position=at) for at in range(10, 14)]
    parts.end(1)
    parts.begin(3, sampling, num_prompt_tokens=10, generated=tokens)
    tokens += [next_token(parts, logits, place=3, position=at) for at in range(14, 20)]

    assert tokens == expected


def test_a_seeded_draw_depends_on_its_position_and_not_on_its_place() -> None:
    hot = Sampling(temperature=1.0, seed=5)
    one = sampler()
    for place in (0, 4):
        one.begin(place, hot, num_prompt_tokens=3)
    flat = torch.zeros((1, VOCAB))

    draws = [next_token(one, flat, place=0, position=at) for at in range(60)]
    elsewhere = [next_token(one, flat, place=4, position=at) for at in range(60)]

    assert draws == elsewhere
    assert len(set(draws)) > 20


def test_a_plain_draw_is_that_of_a_row_that_is_not() -> None:
    one = sampler()
    logits = torch.randn((2, VOCAB), generator=torch.Generator().manual_seed(1))
    hot = Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=3)
    one.begin(0, hot, num_prompt_tokens=3)
    one.begin(1, GREEDY, num_prompt_tokens=3)
    places, positions = torch.tensor([0, 1]), torch.tensor([9, 4])

    plain = one.sample_plain(logits.clone(), places, positions)
    full = one.sample(logits.clone(), places, positions, None, at=[0, 1]).token_ids

    assert plain.tolist() == full.tolist()


def test_log_probabilities_are_the_models_own_and_only_for_who_asks() -> None:
    one = sampler()
    biased = Sampling(temperature=0.0, logit_bias={4: 100.0})
    one.begin(0, biased, num_prompt_tokens=3, num_logprobs=2)
    one.begin(1, GREEDY, num_prompt_tokens=3)
    logits = logits_of(t5=3.0, t6=2.0).repeat(2, 1)
    expected = logits[0].log_softmax(-1)

    sampled = one.sample(
        logits.clone(), torch.tensor([0, 1]), torch.tensor([3, 3]), None, at=[0, 1]
    )
    assert sampled.logprobs is not None
    asked, other = sampled.logprobs.read(sampled.token_ids.tolist())

    assert other is None
    assert asked is not None
    assert (asked.id, asked.token) == (4, b"t4 ")
    assert asked.logprob == pytest.approx(float(expected[4]))
    assert [(top.id, top.logprob) for top in asked.top] == [
        (5, pytest.approx(float(expected[5]))),
        (6, pytest.approx(float(expected[6]))),
    ]
