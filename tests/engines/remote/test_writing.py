from collections.abc import Mapping

import pytest

from engines.errors import RequestRefused, Unavailable
from engines.remote.config import RemoteConfig
from engines.remote.upstream import Upstream as Client
from engines.remote.writing import Question, RequestWriter
from tests.engines.remote.conftest import answer_of
from tests.upstream import Upstream

URL = "http://upstream.example.com/v1"


class Key:
    """A secret."""

    def __init__(self, value: str) -> None:
        self.value = value

    def reveal(self) -> str:
        return self.value


def written(question: Question, **config: object) -> tuple[str, Mapping[str, str]]:
    """The first line of a request, and its headers."""
    writer = RequestWriter(RemoteConfig(**{"base_url": URL} | config))  # type: ignore[arg-type]
    first, *lines = writer.head(question).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    assert len({name for name, _ in pairs}) == len(pairs)
    return first, dict(pairs)


def test_a_known_path_and_any_other_are_written_alike() -> None:
    headers = {"x-client-request-id": "req_1"}
    first, known = written(Question(path="completions", body=b"{}", headers=headers))
    other_first, other = written(Question(path="responses", body=b"{}", headers=headers))

    assert first == "POST /v1/completions HTTP/1.1"
    assert other_first == "POST /v1/responses HTTP/1.1"
    assert known == other == {
        "host": "upstream.example.com",
        "content-type": "application/json",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "penstock",
        "content-length": "2",
        "x-client-request-id": "req_1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://up/v1", "up", "/v1/models"),
        ("http://up:80", "up", "/models"),
        ("https://UP.example.com:443/v1/", "up.example.com", "/v1/models"),
        ("https://up:80/a/b", "up:80", "/a/b/models"),
        ("http://[::1]:8000/v1", "[::1]:8000", "/v1/models"),
        ("http://up./v1", "up", "/v1/models"),
    ],
)
def test_the_base_url_says_the_host_and_where_paths_begin(url: str, host: str, target: str) -> None:
    first, headers = written(Question(method="GET", path="models"), base_url=url)

    assert first == f"GET {target} HTTP/1.1"
    assert headers["host"] == host


def test_only_a_body_has_a_length_but_a_post_always_tells_it() -> None:
    assert "content-length" not in written(Question(method="GET", path="models"))[1]
    assert written(Question(path="completions"))[1]["content-length"] == "0"
    assert written(Question(method="DELETE", path="files/1"))[1]["content-length"] == "0"


def test_what_a_call_says_counts_more_than_what_all_calls_say() -> None:
    given = {"user-agent": "theirs"}

    for path in ("completions", "responses"):
        assert written(Question(path=path, headers=given))[1]["user-agent"] == "theirs"


def test_headers_of_the_policy_replace_ours() -> None:
    _, headers = written(
        Question(path="completions"),
        headers={"User-Agent": "mine", "Host": "other"},
        secret_headers={"Api-Key": Key("k")},
        api_key=Key("b"),
    )

    assert headers["user-agent"] == "mine"
    assert headers["host"] == "other"
    assert (headers["api-key"], headers["authorization"]) == ("k", "Bearer b")


@pytest.mark.parametrize("path", ["completions", "responses"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\0", "\x1b", "\x7f"])
def test_a_header_cannot_begin_another_request(path: str, end: str) -> None:
    value = f"a{end}{end}GET /v1/secret HTTP/1.1"

    with pytest.raises(RequestRefused, match="x-theirs"):
        written(Question(path=path, headers={"x-theirs": value}))
    with pytest.raises(RequestRefused, match="header"):
        written(Question(path=path, headers={f"x-{end}a": "b"}))
    with pytest.raises(RequestRefused, match="header"):
        written(Question(path=path, headers={"x-a: b": "c"}))


@pytest.mark.parametrize(
    "question",
    [
        Question(path="a b"),
        Question(path="a\r\nb"),
        Question(path="a?b"),
        Question(path="a#b"),
        Question(path="é"),
        Question(path=""),
        Question(method="GET /x HTTP/1.1\r\nx:", path="models"),
        Question(method="", path="models"),
    ],
)
def test_neither_can_a_path_or_a_method(question: Question) -> None:
    with pytest.raises(RequestRefused):
        written(question)


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("limit=2&after=x%20y+z", "limit=2&after=x%20y+z"),
        ("a=b c", "a=b%20c"),
        ("a HTTP/1.1\r\nx: y", "a%20HTTP/1.1%0D%0Ax:%20y"),
        ("a=é", "a=%E9"),
        ("a#b", "a%23b"),
        ('{"a":[1]}', '{"a":[1]}'),
    ],
)
def test_a_query_stays_in_its_line(query: str, sent: str) -> None:
    first, _ = written(Question(method="GET", path="models", query=query))

    assert first == f"GET /v1/models?{sent} HTTP/1.1"


def test_a_callers_header_goes_on_byte_by_byte() -> None:
    as_it_came = "naïve 東京".encode().decode("latin-1")

    for path in ("completions", "responses"):
        assert written(Question(path=path, headers={"x-a": as_it_came}))[1]["x-a"] == as_it_came
        assert written(Question(path=path, headers={"x-a": "b\tc"}))[1]["x-a"] == "b\tc"


@pytest.mark.parametrize("field", ["api_key", "secret_headers"])
def test_a_secret_with_a_line_break_is_told_and_not_sent(field: str) -> None:
    secret = Key("very\r\nsecret")
    config = {field: secret if field == "api_key" else {"x-key": secret}}

    with pytest.raises(Unavailable, match="line break") as error:
        written(Question(path="completions"), **config)
    assert "very" not in error.value.message


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "expect", "upgrade", "te", "trailer"]
)
def test_a_policy_cannot_say_where_a_request_ends(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RemoteConfig(base_url=URL, headers={name: "1"})
    with pytest.raises(ValueError, match=name):
        RemoteConfig(base_url=URL, secret_headers={name: Key("1")})


async def test_over_sockets_a_body_arrives_as_it_is(client: Client, upstream: Upstream) -> None:
    for size in (0, 1, 64 * 1024, 64 * 1024 + 1, 5_000_000):
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        await answer_of(client, Question(path="chat/completions", body=body))
        assert upstream.last.body == body
    assert upstream.num_accepted == 1
