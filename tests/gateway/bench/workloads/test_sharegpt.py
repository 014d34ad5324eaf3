import json
from pathlib import Path
from statistics import fmean, median

import pytest

from gateway.bench.workloads import WorkloadInvalid
from gateway.bench.workloads.sharegpt import LONGEST, SHORTEST, ChatLog, Mix, read_log


def test_the_made_up_mix_has_the_documented_averages_and_a_long_tail() -> None:
    questions = [talk.questions[0] for talk in Mix(num_requests=5_000).conversations(0)]
    prompts = [len(question.text.split()) for question in questions]
    answers = [question.max_tokens for question in questions]

    assert 150 < fmean(prompts) < 170
    assert 325 < fmean(answers) < 360
    assert median(prompts) < 0.75 * fmean(prompts)
    for lengths in (prompts, answers):
        assert SHORTEST <= min(lengths) < max(lengths) <= LONGEST


def test_lengths_stay_from_place_to_place_so_that_rounds_compare() -> None:
    one, other = (Mix(num_requests=50).conversations(place) for place in (0, 1))

    for first, second in zip(one, other, strict=True):
        assert first.questions[0].max_tokens == second.questions[0].max_tokens
        assert first.questions[0].text != second.questions[0].text


def test_as_token_ids_the_prompts_have_the_same_lengths() -> None:
    texts = Mix(num_requests=50).conversations(0)
    ids = Mix(num_requests=50, uses_token_ids=True).conversations(0)

    assert [len(talk.questions[0].text.split()) for talk in texts] == [
        len(talk.questions[0].token_ids) for talk in ids
    ]


def said(*values: str) -> dict[str, object]:
    speakers = ("human", "gpt")
    turns = [{"from": speakers[n % 2], "value": value} for n, value in enumerate(values)]
    return {"id": "x", "conversations": turns}


def test_a_file_gives_first_questions_and_the_length_of_their_answers(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    log = [
        said("a question of some length", "x" * 400, "ignored", "ignored"),
        said("hi", "x" * 400),  # shorter than a prompt may be
        said("a question of some length", "x" * 40_000),  # longer than an answer may be
        said("never answered, this one"),
        {"id": "empty"},
    ]
    path.write_text(json.dumps(log))

    pairs = read_log(path, num_requests=1)

    assert list(pairs) == [("a question of some length", 100)]
    talk = ChatLog(pairs=pairs, num_requests=1).conversations(0)[0]
    assert (talk.questions[0].text, talk.questions[0].max_tokens) == pairs[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("not json", "is not a ShareGPT file"),
        ('{"conversations": []}', "is not a ShareGPT file"),
        ("[]", "0 usable conversations"),
    ],
)
def test_a_file_that_is_no_log_is_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "log.json"
    path.write_text(content)

    with pytest.raises(WorkloadInvalid, match=told):
        read_log(path, num_requests=1)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkloadInvalid, match="cannot be read"):
        read_log(tmp_path / "nowhere.json", num_requests=1)
