from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from engines.chat.prepared import completed
from engines.gguf.runner import Row, Runner, Shape
from engines.gguf.sampler import Candidates, Sampler, logprobs
from engines.protocol import Sampling
from tests.gguf_files import write_gguf

PROMPT = [40, 41, 42, 43]
SHAPE = Shape(num_slots=2, context_tokens=256, pool_tokens=512, exact=True, max_batch_tokens=32)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(write_gguf(tmp_path_factory.mktemp("models") / "random.gguf"))
    runner.open_cache(SHAPE)
    runner.decode([Row(token, at, 0, wants_logits=at == 3) for at, token in enumerate(PROMPT)])
    yield runner
    runner.close()


class Only:
    """A constraint that lets these tokens pass, and counts what it was asked."""

    is_finished = False

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = set(tokens)
        self.accepted: list[int] = []
        self.num_masks = 0

    def allows(self, token: int, /) -> bool:
        return token in self.tokens

    def accept(self, token: int, /) -> None:
        self.accepted.append(token)

    def apply(self, logits: npt.NDArray[np.float32], /) -> None:
        self.num_masks += 1
        logits[[token for token in range(len(logits)) if token not in self.tokens]] = -np.inf


def draw(
    runner: Runner, sampling: Sampling, count: int, constraint: Only | None = None
) -> list[int]:
    """So many tokens, each after the same prompt, from one sampler."""
    room = Candidates(runner.num_tokens)
    sampler = Sampler(
        sampling, end_ids=runner.vocabulary.end_ids, room=room, max_tokens=SHAPE.context_tokens
    )
    tokens = [sampler.sample(runner, 3, constraint) for _ in range(count)]
    sampler.close()
    return tokens


def likeliest(runner: Runner) -> list[int]:
    return np.argsort(-runner.logits(3), kind="stable").tolist()


def test_without_temperature_the_likeliest_token_is_taken(runner: Runner) -> None:
    assert draw(runner, Sampling(temperature=0.0), 3) == likeliest(runner)[:1] * 3


def test_a_seed_repeats_and_another_does_not(runner: Runner) -> None:
    hot = Sampling(temperature=1.5, seed=7)

    assert draw(runner, hot, 50) == draw(runner, hot, 50)
    assert draw(runner, hot, 50) != draw(runner, Sampling(temperature=1.5, seed=8), 50)
    assert draw(runner, Sampling(temperature=1.5), 50) != draw(
        runner, Sampling(temperature=1.5), 50
    )


def test_top_k_top_p_and_min_p_leave_the_likeliest(runner: Runner) -> None:
    best = likeliest(runner)

    assert set(draw(runner, Sampling(temperature=5.0, top_k=2, seed=1), 60)) == set(best[:2])
    assert set(draw(runner, Sampling(temperature=5.0, top_p=1e-6, seed=1), 20)) == {best[0]}
    assert set(draw(runner, Sampling(temperature=5.0, min_p=1.0, seed=1), 20)) == {best[0]}


def test_temperature_one_draws_with_the_models_own_probabilities(runner: Runner) -> None:
    drawn = Counter(draw(runner, Sampling(temperature=1.0, seed=3), 4000))

    best = likeliest(runner)[0]
    expected = np.exp(logprobs(runner.logits(3), best, 0, runner.vocabulary.pieces).logprob)
    assert drawn[best] / 4000 == pytest.approx(expected, abs=0.03)


def test_a_logit_bias_forces_and_forbids(runner: Runner) -> None:
    best, last = likeliest(runner)[0], likeliest(runner)[-1]

    assert draw(runner, Sampling(temperature=0.0, logit_bias={last: 1000.0}), 1) == [last]
    assert draw(runner, Sampling(temperature=0.0, logit_bias={best: -1000.0}), 1) != [best]


def test_penalties_see_what_was_generated(runner: Runner) -> None:
    best = likeliest(runner)

    for penalty in (
        Sampling(temperature=0.0, frequency_penalty=50.0),
        Sampling(temperature=0.0, presence_penalty=50.0),
    ):
        assert draw(runner, penalty, 3) == best[:3]
    assert len(set(draw(runner, Sampling(temperature=0.0, repeat_penalty=50.0), 3))) == 3


def test_ignoring_the_end_or_wanting_more_tokens_keeps_the_end_away(runner: Runner) -> None:
    ends = runner.vocabulary.end_ids
    wish = dict.fromkeys(ends, 1000.0)

    eager = draw(runner, Sampling(temperature=0.0, logit_bias=wish), 1)
    patient = draw(runner, Sampling(temperature=0.0, min_tokens=2), 3)
    endless = draw(runner, Sampling(temperature=0.0, logit_bias=wish, ignore_eos=True), 1)

    assert eager[0] in ends
    assert not set(patient[:2]) & set(ends)
    assert endless[0] not in ends


def test_a_constraint_is_asked_about_the_drawn_token_before_all_are_masked(
    runner: Runner,
) -> None:
    best = likeliest(runner)
    allowing, refusing = Only(best[:1]), Only(best[5:6])

    assert draw(runner, Sampling(temperature=0.0), 1, allowing) == best[:1]
    assert draw(runner, Sampling(temperature=0.0), 1, refusing) == best[5:6]

    assert (allowing.num_masks, refusing.num_masks) == (0, 1)
    assert (allowing.accepted, refusing.accepted) == (best[:1], best[5:6])


def test_a_constrained_draw_keeps_the_proportions_of_what_is_allowed(runner: Runner) -> None:
    first, second = likeliest(runner)[:2]
    logits = runner.logits(3)
    expected = 1.0 / (1.0 + np.exp(logits[second] - logits[first]))

    drawn = draw(runner, Sampling(temperature=1.0, seed=5), 3000, Only([first, second]))

    assert drawn.count(first) / 3000 == pytest.approx(expected, abs=0.03)


def test_logprobs_are_the_models_own_and_the_best_come_first(runner: Runner) -> None:
    logits, best = runner.logits(3), likeliest(runner)

    told = logprobs(logits, best[3], 5, runner.vocabulary.pieces)

    assert [one.id for one in told.top] == best[:5]
    assert told.logprob == pytest.approx(told.top[3].logprob)
    everything = logprobs(logits, best[0], len(logits), runner.vocabulary.pieces)
    assert sum(np.exp(one.logprob) for one in everything.top) == pytest.approx(1.0)


def test_what_a_request_leaves_open_is_the_models_own() -> None:
    own = Sampling(temperature=0.3, top_p=0.9, top_k=20, min_p=0.1, repeat_penalty=1.1)

    assert completed(Sampling(top_k=5), own) == Sampling(
        temperature=0.3, top_p=0.9, top_k=5, min_p=0.1, repeat_penalty=1.1
    )
