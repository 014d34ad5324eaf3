"""Runs and answers with times that a test chooses."""

from collections.abc import Callable, Sequence

from gateway.bench.drive import Failure, Run, Sample
from gateway.bench.load import AtOnce, Load
from gateway.bench.question import Answer, AskFailed, Question, Turn

Reply = Answer | AskFailed


def answer(*arrivals: float, tokens: int | None = None, end: float | None = None) -> Answer:
    """An answer whose pieces arrived at these times."""
    return Answer(
        text="word " * len(arrivals),
        arrivals=arrivals,
        finished_at=arrivals[-1] if end is None else end,
        prompt_tokens=10,
        completion_tokens=len(arrivals) if tokens is None else tokens,
    )


def sample(
    reply: Answer | Failure, *, due: float = 0.0, index: int = 0, late: float = 0.0
) -> Sample:
    """A question that was due at a time and got this."""
    return Sample(
        conversation=index,
        turn=0,
        due=due,
        asked_at=due + late,
        max_tokens=8,
        ignores_eos=False,
        answer=reply if isinstance(reply, Answer) else None,
        failure=reply if isinstance(reply, Failure) else None,
    )


def run(
    *samples: Sample, seconds: float = 1.0, load: Load | None = None, subject: str = "a"
) -> Run:
    """A run of these samples."""
    return Run(
        subject=subject,
        load=load or AtOnce(1),
        round=0,
        seconds=seconds,
        client_busy=0.1,
        num_unasked=0,
        samples=samples,
    )


class ScriptedSubject:
    """Answers with what `reply` makes of a question; remembers what it was asked."""

    shares_process = False

    def __init__(
        self, reply: Callable[[Question, Sequence[Turn]], Reply], *, name: str = "scripted"
    ) -> None:
        self.name = name
        self.asked: list[tuple[Question, Sequence[Turn]]] = []
        self._reply = reply

    async def ask(self, question: Question, history: Sequence[Turn]) -> Answer:
        self.asked.append((question, history))
        reply = self._reply(question, history)
        if isinstance(reply, AskFailed):
            raise reply
        return reply
