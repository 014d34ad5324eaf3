import os

import pytest

from gateway.policy import PolicyInvalid
from gateway.policy.files import MAX_BYTES, read_files
from tests.gateway.policy.directories import GATEWAY, load, problems_of, write


def test_a_directory_that_is_not_there_is_named_with_the_nearest_one(tmp_path):
    write(tmp_path / "dev")

    with pytest.raises(PolicyInvalid) as refused:
        load(tmp_path / "dve")

    assert str(refused.value) == (
        f"there is no policy directory {tmp_path / 'dve'} (did you mean {tmp_path / 'dev'}?)"
    )


def test_a_file_in_place_of_a_directory_names_its_directory(tmp_path):
    directory = write(tmp_path / "dev")

    with pytest.raises(PolicyInvalid) as refused:
        load(directory / "gateway.toml")

    assert str(refused.value) == (
        f"{directory / 'gateway.toml'} is a file; a policy is a directory, here {directory}"
    )


def test_a_directory_name_that_no_system_can_have_is_refused(tmp_path):
    with pytest.raises(PolicyInvalid, match="cannot be read"):
        load(tmp_path / ("x" * 300))
    with pytest.raises(PolicyInvalid, match="cannot be read"):
        load(tmp_path / "a\0b")


def test_gateway_toml_is_required_and_its_absence_explained(tmp_path):
    directory = write(tmp_path, gateway=None)

    assert problems_of(directory) == [
        "gateway.toml: missing from DIR; it lists the plugins, "
        'for example plugins = ["access_log", "api_keys", "allow_lists", "routing"]'
    ]


def test_a_toml_file_that_nothing_reads_is_a_problem(tmp_path):
    directory = write(tmp_path)
    (directory / "model.toml").write_text("")
    (directory / "notes.txt").write_text("not a policy file")

    assert problems_of(directory) == [
        'model.toml: nothing reads a file of this name (did you mean "models.toml"?)'
    ]


def test_a_directory_in_place_of_a_file_is_a_problem(tmp_path):
    directory = write(tmp_path, limits=None)
    (directory / "limits.toml").mkdir()

    assert problems_of(directory) == ["limits.toml: is not a regular file"]


def test_a_named_pipe_is_not_waited_for(tmp_path):
    directory = write(tmp_path, limits=None)
    os.mkfifo(directory / "limits.toml")

    assert problems_of(directory) == ["limits.toml: is not a regular file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_problem(tmp_path):
    directory = write(tmp_path)
    (directory / "limits.toml").chmod(0)

    assert problems_of(directory) == ["limits.toml: cannot be read: Permission denied"]


def test_a_link_to_nowhere_is_a_problem(tmp_path):
    directory = write(tmp_path, limits=None)
    (directory / "limits.toml").symlink_to(tmp_path / "nowhere")

    assert problems_of(directory) == ["limits.toml: is not a regular file"]


def test_a_file_that_is_not_utf_8_is_named_with_its_line_and_byte(tmp_path):
    directory = write(tmp_path)
    (directory / "limits.toml").write_bytes("[standard]\n# caf\xe9\n".encode("latin-1"))

    assert problems_of(directory) == [
        "limits.toml: line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"
    ]


def test_a_byte_order_mark_is_read_over(tmp_path):
    directory = write(tmp_path)
    (directory / "gateway.toml").write_bytes(b"\xef\xbb\xbf" + GATEWAY.encode())

    assert problems_of(directory) == []


def test_a_giant_file_is_refused_without_reading_all_of_it(tmp_path):
    directory = write(tmp_path)
    (directory / "limits.toml").write_text("#" * (MAX_BYTES + 1))

    assert problems_of(directory) == ["limits.toml: is over 1024 KiB; that is no policy file"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = " + "[" * 100_000, "limits.toml: is nested too deeply; a policy needs two levels"),
        ("x = " + "1" * 5000, "limits.toml: holds a number or a date that cannot be read"),
        ("x = 2026-14-01", "limits.toml: holds a number or a date that cannot be read"),
    ],
)
def test_what_the_parser_itself_cannot_bear_is_a_problem(tmp_path, content, said):
    problems = problems_of(write(tmp_path, limits=content, teams=None))

    assert len(problems) == 1
    # Which of the parser's errors it is depends on the version of Python.
    assert problems[0] == said or problems[0].startswith("limits.toml: line 1")


def test_files_that_are_missing_have_empty_trees(tmp_path):
    files = read_files(write(tmp_path, limits=None, teams="["))

    assert files.missing == {"limits.toml", "prices.toml"}
    assert files.broken == {"teams.toml"}
    assert files.trees["limits.toml"] == files.trees["teams.toml"] == {}
