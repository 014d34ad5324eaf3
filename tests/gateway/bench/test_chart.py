import sys
from pathlib import Path

import pytest

from gateway.bench.chart import ChartImpossible, check_chart, draw
from gateway.bench.drive import Failure
from gateway.bench.load import AtOnce
from tests.gateway.bench.answers import answer, run, sample
from tests.gateway.bench.test_report import result_of


@pytest.mark.parametrize(("name", "begins"), [("c.png", b"\x89PNG"), ("c.svg", b"<?xml")])
def test_a_chart_of_two_subjects_and_two_loads_is_drawn(
    tmp_path: Path, name: str, begins: bytes
) -> None:
    results = [
        result_of(run(sample(answer(0.1, 0.2, 0.3)), subject=subject, load=AtOnce(callers)))
        for callers in (1, 4)
        for subject in ("http://a", "http://b")
    ]

    draw(results, tmp_path / name, title="a title")

    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(begins)
    assert len(drawn) > 10_000


def test_a_subject_that_answered_nothing_leaves_its_place_empty(tmp_path: Path) -> None:
    failed = result_of(run(sample(Failure("connect", "no")), subject="dead"))
    fine = result_of(run(sample(answer(0.1)), subject="fine"))

    draw([failed, fine], tmp_path / "c.svg", title="a title")

    assert (tmp_path / "c.svg").exists()


def test_what_cannot_be_drawn_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_chart(tmp_path / "chart.PNG")
    with pytest.raises(ChartImpossible, match=r"neither \.png nor \.svg"):
        check_chart(tmp_path / "chart.pdf")
    with pytest.raises(ChartImpossible, match="there is no folder"):
        check_chart(tmp_path / "nowhere" / "chart.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ChartImpossible, match=r"pip install 'penstock\[chart\]'"):
        check_chart(tmp_path / "chart.png")
