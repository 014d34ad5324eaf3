import json
from collections.abc import Sequence

import msgspec
from rich.console import Console

from gateway.bench.drive import Failure, Run
from gateway.bench.load import AtOnce, Rate
from gateway.bench.plan import Result
from gateway.bench.report import document_of, notes_on, row_of, tables_of
from gateway.bench.same_text import Comparison, Difference
from gateway.bench.summary import summary_of
from tests.gateway.bench.answers import answer, run, sample


def result_of(*runs: Run, roofline: float | None = None) -> Result:
    summaries = [summary_of(each, roofline=roofline) for each in runs]
    return Result(
        subject=runs[0].subject,
        load=str(runs[0].load),
        summary=summaries[0],
        rounds=summaries,
        median_run=runs[0],
    )


def printed(results: Sequence[Result]) -> str:
    console = Console(width=160, highlight=False)
    with console.capture() as captured:
        console.print(tables_of(results))
    return captured.get()


A = run(sample(answer(0.5, 1.0, 1.5)), sample(Failure("http_429", "busy")), load=AtOnce(4))


def test_a_row_is_flat_and_in_milliseconds() -> None:
    row = row_of(summary_of(A))

    assert (row["url"], row["at_once"], row["answers"], row["failures"]) == ("a", 4, 1, 1)
    assert row["first_output_ms_p50"] == 500.0
    assert row["between_tokens_ms_mean"] == 500.0
    assert row["answer_ms_p99"] == 1500.0
    assert row["tokens_per_second"] == 3.0
    assert row["failures_by_kind"] == {"http_429": 1}
    assert row["asked_late_ms_p99"] is None
    assert "at_once" not in row_of(summary_of(run(sample(answer(1.0)), load=Rate(2.0))))


def test_a_row_of_nothing_but_failures_has_no_latency() -> None:
    row = row_of(summary_of(run(sample(Failure("connect", "nothing there")))))

    assert row["first_output_ms_p50"] is None
    assert row["first_failure"] == "nothing there"


def test_the_document_has_all_rounds_and_the_ratios_as_json() -> None:
    other = msgspec.structs.replace(A, subject="b", seconds=2.0)

    document = document_of([result_of(A, A), result_of(other, other)], {"model": "m"})

    read = json.loads(json.dumps(document))
    assert [row["url"] for row in read["rows"]] == ["a", "b"]
    assert len(read["rounds"]) == 4
    speeds = [ratio for ratio in read["ratios"] if ratio["figure"] == "output tokens/s"]
    assert [(ratio["ours"], ratio["theirs"], ratio["median"]) for ratio in speeds] == [
        ("a", "b", 2.0)
    ]
    assert read["about"] == {"model": "m"}


def test_the_tables_have_every_subject_load_and_percentile() -> None:
    text = printed([result_of(A, roofline=0.789)])

    for word in ("4 at once", "TTFT", "TPOT", "ITL", "E2E", "p50", "p99", "78.9%", "1,500"):
        assert word in text
    assert "good/s" not in text
    assert "ratio" not in text


def notes(result: Result) -> str:
    return "\n".join(notes_on(result))


def test_failures_are_told_with_their_first_message() -> None:
    assert "1 failed (http_429): busy" in notes(result_of(A))


def test_a_server_that_does_not_honour_ignore_eos_is_told() -> None:
    asked = msgspec.structs.replace(sample(answer(1.0, 2.0)), ignores_eos=True, max_tokens=90)

    assert "2 output tokens, where 90 were asked for" in notes(result_of(run(asked)))
    whole = msgspec.structs.replace(asked, max_tokens=2)
    assert notes(result_of(run(whole))) == ""


def test_what_makes_the_figures_doubtful_is_told() -> None:
    untold = msgspec.structs.replace(answer(1.0), tokens_were_told=False)
    busy = msgspec.structs.replace(run(sample(untold)), client_busy=0.9, num_unasked=2)
    late = run(sample(answer(1.0), late=0.5), load=Rate(1.0))

    told = notes(result_of(busy))

    assert "1 answers told no usage" in told
    assert "busy 90% of the time" in told
    assert "2 later turns were not asked" in told
    assert "500 ms late" in notes(result_of(late))
    in_process = msgspec.structs.replace(busy, client_busy=None)
    assert "busy" not in notes(result_of(in_process))


def test_different_texts_are_shown() -> None:
    difference = Difference(conversation=3, turn=0, at=7, alone="this", together="that")
    result = msgspec.structs.replace(result_of(A), same_text=Comparison(8, [difference]))

    told = notes(result)

    assert "7 of 8 answers are the same as alone" in told
    assert "question 4" in told
    assert "alone 'this', together 'that'" in told
    assert document_of([result], {})["rows"][0]["different_texts"] == 1
