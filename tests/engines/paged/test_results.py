"""What a step brings is on its way before the next one is launched."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines.outbox import Mailbox
from engines.paged import logprobs, prompt_scores, results
from engines.paged.logprobs import Logprobs
from engines.paged.prompt_scores import PromptScores
from engines.paged.requests import Request
from engines.paged.results import Pending
from engines.paged.sequence import Row
from engines.paged.transfers import to_host
from engines.protocol import Sampling, TokenLogprob, TopLogprob
from tests.engines.paged.steps import sequence

PIECES = [b"a", b"b", b"c"]
LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
CPU = torch.device("cpu")


def scores_of(tokens: torch.Tensor) -> Logprobs:
    return Logprobs.of(LOGITS, tokens, [1, None], PIECES)


def prompt_scores_of(prompt: list[int]) -> Any:
    asking = Request(mailbox=Mailbox(), sampling=Sampling(), num_prompt_logprobs=1)
    one = sequence(prompt, payload=asking)
    model: Any = SimpleNamespace(logits=lambda hidden: hidden)
    unused: Any = None
    rows = [Row(one, 0, len(prompt))]
    return PromptScores(model, PIECES).of(rows, unused, torch.zeros(len(prompt), len(PIECES)))


def test_what_the_next_step_overwrites_was_read_before() -> None:
    tokens = torch.tensor([1, 0])
    pending = Pending(CPU, tokens, scores_of(tokens), [], None)
    tokens.fill_(2)  # a replay's outputs are the last one's

    read = pending.read()

    assert read.tokens == [1, 0]
    assert read.logprobs is not None
    first, second = read.logprobs
    score = pytest.approx(float(LOGITS[0].log_softmax(-1)[1]))
    assert first == TokenLogprob(b"b", score, [TopLogprob(b"b", score, 1)], 1)
    assert second is None


def test_every_copy_is_launched_before_the_event_that_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    def noting(tensor: torch.Tensor) -> torch.Tensor:
        events.append("copy")
        return to_host(tensor)

    class Event:
        def record(self) -> None:
            events.append("record")

        def synchronize(self) -> None:
            events.append("wait")

    for module in (results, logprobs, prompt_scores):
        monkeypatch.setattr(module, "to_host", noting)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    tokens = torch.tensor([1, 0])
    on_gpu: Any = torch.device("cuda:1")

    pending = Pending(on_gpu, tokens, scores_of(tokens), [], prompt_scores_of([0, 2, 1]))
    read = pending.read()

    assert events == ["copy"] * 7 + ["record", "wait"]
    assert [entry.id for entry in read.prompt_logprobs[0]] == [2, 1]
