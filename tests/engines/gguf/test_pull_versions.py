"""Files behind URLs that change while they are pulled, or between two pulls."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from engines.errors import Unavailable
from engines.gguf.library import Library
from engines.gguf.registry.version_tag import is_of_version, version_tag
from tests.engines.gguf.registry.fake_host import FakeHost, Fault, ranged, status
from tests.engines.gguf.registry.pulling import blob, leftovers, pulled
from tests.gguf_files import write_gguf

PATH = "/files/m.gguf"
PART_BYTES = 10_000
DATES = ("Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT")
DATED = [{"Last-Modified": date} for date in DATES]
WEAK = [{"ETag": 'W/"1"', "Last-Modified": date} for date in DATES]
WEAK_ALONE = [{"ETag": 'W/"1"'}] * 2
NOTHING: list[dict[str, str]] = [{}, {}]
SURE = [DATED, WEAK]
UNSURE = [WEAK_ALONE, NOTHING]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Two files of the same length that differ at their beginnings and at their ends."""
    folder = tmp_path_factory.mktemp("gguf")
    first = write_gguf(folder / "1.gguf", layers=1, name="older!", seed=1).read_bytes()
    second = write_gguf(folder / "2.gguf", layers=1, name="newer!", seed=2).read_bytes()
    assert len(first) == len(second)
    assert first[:PART_BYTES] != second[:PART_BYTES]
    return first, second


@pytest.fixture
async def host() -> AsyncGenerator[FakeHost]:
    async with FakeHost().running() as running:
        running.files[PATH] = b""
        yield running


@pytest.mark.parametrize("said", SURE + UNSURE)
async def test_a_file_that_was_replaced_between_two_pulls_is_no_mixture(
    host: FakeHost, tmp_path: Path, versions: tuple[bytes, bytes], said: list[dict[str, str]]
) -> None:
    host.faults[PATH] = _breaking(versions[0], said[0], _one_part_and_no_more)
    with contextlib.suppress(Unavailable):  # one that asks for the whole file at once has it
        await pulled(tmp_path, f"{host.url}{PATH}", num_streams=1, part_bytes=PART_BYTES)
    host.faults[PATH] = _breaking(versions[1], said[1], lambda number: True)

    await pulled(tmp_path, f"{host.url}{PATH}", num_streams=1, part_bytes=PART_BYTES)

    assert Library(tmp_path, {}).find("m").read_bytes() == versions[1]


@pytest.mark.parametrize("said", SURE + UNSURE)
async def test_a_file_that_is_replaced_while_it_is_pulled_is_no_mixture(
    host: FakeHost, tmp_path: Path, versions: tuple[bytes, bytes], said: list[dict[str, str]]
) -> None:
    answers = iter(range(1000))

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        is_new = next(answers) >= 3
        # Not every server heeds If-Range.
        asked = request.clone(headers=_without(request.headers, "If-Range"))
        return ranged(asked, versions[is_new], said[is_new])

    host.faults[PATH] = fault
    how = {"num_streams": 1, "part_bytes": PART_BYTES}
    if said in SURE:
        with pytest.raises(Unavailable, match="has changed meanwhile"):
            await pulled(tmp_path, f"{host.url}{PATH}", **how)

    await pulled(tmp_path, f"{host.url}{PATH}", **how)

    found = Library(tmp_path, {}).find("m")
    assert found.read_bytes() in versions
    assert found == blob(tmp_path, found.read_bytes())


async def test_a_file_with_a_date_is_gone_on_with(
    host: FakeHost, tmp_path: Path, versions: tuple[bytes, bytes]
) -> None:
    host.faults[PATH] = _breaking(versions[0], DATED[0], _one_part_and_no_more)
    how = {"num_streams": 1, "part_bytes": PART_BYTES}
    with pytest.raises(Unavailable, match="the next pull goes on from there"):
        await pulled(tmp_path, f"{host.url}{PATH}", **how)
    before = len(host.requests)
    host.faults[PATH] = _breaking(versions[0], DATED[0], lambda number: True)

    await pulled(tmp_path, f"{host.url}{PATH}", **how)

    asked = [headers for _, headers in host.requests[before:]]
    assert not any(headers["Range"].startswith("bytes=0-9") for headers in asked)
    assert all(headers["If-Range"] == DATES[0] for headers in asked[1:])
    assert blob(tmp_path, versions[0]).exists()


@pytest.mark.parametrize("said", UNSURE)
async def test_what_has_no_version_comes_in_one_piece_and_leaves_none(
    host: FakeHost, tmp_path: Path, versions: tuple[bytes, bytes], said: list[dict[str, str]]
) -> None:
    async def cut(request: web.Request, content: bytes) -> web.StreamResponse:
        if "Range" in request.headers:
            return ranged(request, versions[0], said[0])
        response = web.StreamResponse(headers={"Content-Length": str(len(versions[0]))})
        await response.prepare(request)
        await response.write(versions[0][:PART_BYTES])
        assert request.transport is not None
        request.transport.close()
        return response

    host.faults[PATH] = cut

    with pytest.raises(Unavailable, match="cannot go on from what was fetched"):
        await pulled(tmp_path, f"{host.url}{PATH}", part_bytes=PART_BYTES)

    assert leftovers(tmp_path) == []
    assert len([1 for _, headers in host.requests if "Range" not in headers]) == 3


@pytest.mark.parametrize(
    ("headers", "tag"),
    [
        ({"ETag": '"a"', "Last-Modified": DATES[0], "Date": DATES[1]}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": DATES[0], "Date": DATES[1]}, DATES[0]),
        ({"Last-Modified": DATES[0], "Date": DATES[1]}, DATES[0]),
        # Changed in the second of the answer: it may change again and keep its date.
        ({"Last-Modified": DATES[0], "Date": DATES[0]}, ""),
        ({"Last-Modified": DATES[1], "Date": DATES[0]}, ""),
        ({"Last-Modified": DATES[0]}, ""),
        ({"Last-Modified": "yesterday", "Date": DATES[1]}, ""),
        ({"Last-Modified": "Mon, 02 Nov 2026 10:00:00", "Date": DATES[1]}, ""),
        ({"ETag": 'W/"a"'}, ""),
        ({"ETag": '"\x01"'}, ""),
        ({}, ""),
    ],
)
def test_only_what_is_sure_to_change_with_a_file_is_its_tag(
    headers: Mapping[str, str], tag: str
) -> None:
    assert version_tag(headers) == tag


def test_an_answer_that_says_nothing_of_its_version_is_believed() -> None:
    assert is_of_version({}, DATES[0])
    assert is_of_version({"Last-Modified": DATES[0], "ETag": 'W/"b"'}, DATES[0])
    assert not is_of_version({"Last-Modified": DATES[1]}, DATES[0])
    assert not is_of_version({"ETag": '"b"'}, '"a"')


def _one_part_and_no_more(number: int) -> bool:
    return number < 2


def _breaking(content: bytes, said: Mapping[str, str], answers: Callable[[int], bool]) -> Fault:
    """Answers the first requests, and every later one as if it were overloaded."""
    numbers = iter(range(1000))
    gone = status(503)

    async def fault(request: web.Request, nothing: bytes) -> web.StreamResponse:
        if answers(next(numbers)):
            return ranged(request, content, said)
        return await gone(request, nothing)

    return fault


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() != name.lower()}
