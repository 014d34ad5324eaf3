from pathlib import Path

from structlog.testing import capture_logs

from engines.gguf.remembered import MAX_ENTRIES, Remembered


def remembered(path: Path | None) -> Remembered[int]:
    return Remembered(path, int, event="not_remembered")


def test_what_was_learned_is_there_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "learned.json"
    remembered(path).put("a", 1)

    assert remembered(path).get("a") == 1
    assert [file.name for file in path.parent.iterdir()] == ["learned.json"]


def test_a_file_of_something_else_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    path.write_text('{"a": "text"}')

    assert remembered(path).get("a") is None


def test_the_oldest_goes_first() -> None:
    learned = remembered(None)
    for number in range(MAX_ENTRIES + 1):
        learned.put(str(number), number)

    assert (learned.get("0"), learned.get("1")) == (None, 1)


def test_what_cannot_be_written_holds_until_the_end_and_is_logged(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    learned = remembered(tmp_path / "file" / "learned.json")
    with capture_logs() as logs:
        learned.put("a", 1)

    assert learned.get("a") == 1
    assert [line["event"] for line in logs] == ["not_remembered"]
