import asyncio
from collections.abc import Sequence

from gateway.bench.drive import drive
from gateway.bench.load import AtOnce, Rate
from gateway.bench.question import Answer, AskFailed, Conversation, Question, Turn
from tests.gateway.bench.answers import ScriptedSubject, answer


def talks(count: int, turns: int = 1) -> list[Conversation]:
    return [
        Conversation(questions=[Question(text=f"{n}.{t}", max_tokens=4) for t in range(turns)])
        for n in range(count)
    ]


class GatedSubject:
    """Answers nobody until the test opens the gate."""

    name = "gated"
    shares_process = False

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.all_in = asyncio.Event()
        self.wanted = 0

    async def ask(self, question: Question, history: Sequence[Turn]) -> Answer:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == self.wanted:
            self.all_in.set()
        await self.gate.wait()
        await asyncio.sleep(0)
        self.running -= 1
        return answer(1.0)


async def test_so_many_are_asked_at_once_and_never_more() -> None:
    subject = GatedSubject()
    subject.wanted = 3
    running = asyncio.create_task(drive(subject, talks(10), AtOnce(3)))

    await subject.all_in.wait()
    subject.gate.set()
    run = await running

    assert subject.most == 3
    assert len(run.answered) == 10


async def test_an_open_loop_asks_on_time_though_nobody_was_answered() -> None:
    subject = GatedSubject()
    subject.wanted = 20
    running = asyncio.create_task(drive(subject, talks(20), Rate(2_000.0)))

    await subject.all_in.wait()  # a loop that waited for answers would never get here
    subject.gate.set()

    assert len((await running).answered) == 20


async def test_an_open_loop_counts_from_the_time_that_was_drawn() -> None:
    """A client that is held up asks late, and its answers are the slower for it."""

    def hold_up(question: Question, history: Sequence[Turn]) -> Answer:
        if question.text == "0.0":
            for _ in range(2_000_000):  # the loop's own thread is busy for a while
                pass
        return answer(1.0)

    run = await drive(ScriptedSubject(hold_up), talks(50), Rate(10_000.0))

    late = [sample.asked_at - sample.due for sample in run.samples]
    assert max(late) > 0.001
    assert min(late) >= 0.0


async def test_a_conversation_carries_its_answers_along() -> None:
    subject = ScriptedSubject(lambda question, history: answer(1.0, 2.0))
    talk = Conversation(system="be kind", questions=talks(1, turns=3)[0].questions)

    run = await drive(subject, [talk], AtOnce(1))

    assert [(turn.role, turn.text) for turn in subject.asked[2][1]] == [
        ("system", "be kind"),
        ("user", "0.0"),
        ("assistant", "word word "),
        ("user", "0.1"),
        ("assistant", "word word "),
    ]
    assert [sample.turn for sample in run.samples] == [0, 1, 2]


async def test_a_failed_turn_ends_its_conversation_and_the_rest_is_told() -> None:
    def reply(question: Question, history: Sequence[Turn]) -> Answer | AskFailed:
        return AskFailed("cut_off", "gone") if question.text == "1.0" else answer(1.0)

    run = await drive(ScriptedSubject(reply), talks(3, turns=2), AtOnce(2))

    assert len(run.answered) == 4
    assert [sample.failure.kind for sample in run.samples if sample.failure] == ["cut_off"]
    assert run.num_unasked == 1


async def test_every_question_is_reported_to_the_watcher_failed_ones_too() -> None:
    told: list[None] = []
    subject = ScriptedSubject(lambda question, history: AskFailed("empty", "nothing"))

    run = await drive(subject, talks(5), AtOnce(2), on_answer=lambda: told.append(None))

    assert len(told) == 5
    assert run.output_tokens == 0
    assert run.client_busy is not None
