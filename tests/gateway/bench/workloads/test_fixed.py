import pytest

from gateway.bench.workloads import Workload
from gateway.bench.workloads.fixed import Fixed
from gateway.bench.workloads.nano import Nano
from gateway.bench.workloads.shared_prefix import SharedPrefix
from gateway.bench.workloads.sharegpt import Mix

FIXED = Fixed(num_requests=20, max_tokens=7)
CHAT = SharedPrefix(num_users=4, num_turns=3, system_words=50, prompt_words=5, max_tokens=9)


@pytest.mark.parametrize("workload", [FIXED, CHAT, Mix(num_requests=20), Nano()], ids=repr)
def test_a_place_is_always_the_same_and_no_two_are_alike(workload: Workload) -> None:
    assert workload.conversations(3) == workload.conversations(3)
    assert workload.conversations(3) != workload.conversations(4)


def test_prompts_have_the_length_and_begin_differently() -> None:
    questions = [talk.questions[0] for talk in FIXED.conversations(0)]

    assert {len(question.text.split()) for question in questions} == {30}
    assert len({question.text.split()[0] for question in questions}) == 20
    assert {question.max_tokens for question in questions} == {7}


def test_token_id_prompts_have_exactly_that_many_ids() -> None:
    workload = Fixed(num_requests=5, max_tokens=7, prompt_tokens=333, vocab_size=40)

    for talk in workload.conversations(0):
        assert len(talk.questions[0].token_ids) == 333
        assert set(talk.questions[0].token_ids) <= set(range(40))


def test_a_given_prompt_is_asked_every_time() -> None:
    workload = Fixed(num_requests=3, max_tokens=7, prompt="count to ten")

    texts = {talk.questions[0].text for place in (0, 1) for talk in workload.conversations(place)}
    assert texts == {"count to ten"}


def test_users_share_a_system_prompt_and_no_question() -> None:
    users = CHAT.conversations(0)

    assert len(users) == 4
    assert len({user.system for user in users}) == 1
    assert len(users[0].system.split()) == 50
    texts = [question.text for user in users for question in user.questions]
    assert len(set(texts)) == len(texts) == 12
    assert CHAT.conversations(1)[0].system != users[0].system
