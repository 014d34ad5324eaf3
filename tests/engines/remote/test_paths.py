import pytest

from engines.remote.paths import PassedPaths

PATHS = PassedPaths(["responses", "GET responses/*", "DELETE responses/*", "audio/speech"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "chat/completions"),
        ("POST", "rerank"),
        ("POST", "responses"),
        ("GET", "responses/resp_abc-1.2:3"),
        ("DELETE", "responses/x"),
        ("POST", "audio/speech"),
    ],
)
def test_a_listed_path_may_be_called(method: str, path: str) -> None:
    assert PATHS.allow(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "chat/completions"),
        ("GET", "responses"),
        ("POST", "responses/x"),
        ("GET", "responses/x/y"),
        ("GET", "responses/.."),
        ("GET", "responses/%2e%2e"),
        ("GET", "responses/..%2f..%2fadmin"),
        ("GET", "responses/a?b"),
        ("GET", "responses/a#b"),
        ("GET", "responses/a\\b"),
        ("GET", "responses/"),
        ("GET", "responses//x"),
        ("GET", "responses/" + "x" * 200),
        ("POST", "files"),
        ("POST", ""),
    ],
)
def test_nothing_else_may(method: str, path: str) -> None:
    assert not PATHS.allow(method, path)


def test_without_a_list_only_the_known_paths_may() -> None:
    assert PassedPaths(()).allow("POST", "embeddings")
    assert not PassedPaths(()).allow("POST", "responses")
