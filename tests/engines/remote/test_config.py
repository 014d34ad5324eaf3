import pytest

from engines.remote.config import PRIVATE_HEADERS, RemoteConfig

URL = "https://upstream.example.com/v1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "upstream.example.com/v1",
        "ftp://upstream.example.com",
        "file:///etc/passwd",
        "http://",
        "http:///v1",
        "https://user:secret@upstream.example.com/v1",
        "https://upstream.example.com/v1?key=1",
        "https://upstream.example.com/v1#a",
        "https://upstream.example.com\\@169.254.169.254/",
        "https://upstream.example.com:99999/v1",
        "https://upstream.example.com:0/v1",
        "https://upstream.example.com/v1 ",
        "http://[::1/v1",
    ],
)
def test_a_base_url_is_scheme_host_and_path(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        RemoteConfig(base_url=url)


@pytest.mark.parametrize(
    "url", [URL, "http://127.0.0.1:8000/v1/", "http://[::1]:8000", "http://gpu-3.internal/a/b"]
)
def test_a_usual_base_url_is_fine(url: str) -> None:
    assert RemoteConfig(base_url=url).base_url == url


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376",
     "[fd20:ce::254]", "[::ffff:169.254.169.254]", "0.0.0.0", "[fe80::1%25eth0]"],
)  # fmt: skip
def test_an_address_that_nothing_may_be_connected_to_is_refused_at_once(host: str) -> None:
    with pytest.raises(ValueError, match="no upstream may have"):
        RemoteConfig(base_url=f"http://{host}/v1")

    RemoteConfig(base_url=f"http://{host}/v1", allow_networks=["0.0.0.0/0", "::/0"])


def test_a_private_address_is_refused_at_once_where_none_is_allowed() -> None:
    with pytest.raises(ValueError, match="allow_private"):
        RemoteConfig(base_url="http://10.1.2.3/v1", allow_private=False)

    # A name may lead there some day; that is looked at each time.
    RemoteConfig(base_url="http://localhost/v1", allow_private=False)


@pytest.mark.parametrize("name", sorted(PRIVATE_HEADERS))
@pytest.mark.parametrize("field", ["pass_headers", "return_headers"])
def test_private_headers_are_never_passed_on(field: str, name: str) -> None:
    with pytest.raises(ValueError, match="never passed on"):
        RemoteConfig(base_url=URL, **{field: [name.title()]})


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"headers": {"a b": "x"}}, "a b"),
        ({"headers": {"a\r\nb": "x"}}, "header"),
        ({"headers": {"a": "x\r\ny: z"}}, "line break"),
        ({"pass_headers": [""]}, "header"),
        ({"passthrough": ["/responses"]}, "passthrough"),
        ({"passthrough": ["../admin"]}, "passthrough"),
        ({"passthrough": ["PUT files"]}, "passthrough"),
        ({"passthrough": ["*"]}, "passthrough"),
        ({"allow_networks": ["10.0.0.0/99"]}, "10.0.0.0/99"),
        ({"idle_seconds": 0}, "idle_seconds"),
        ({"total_seconds": float("nan")}, "total_seconds"),
        ({"max_connections": -1}, "max_connections"),
        ({"verify": False, "ca_file": "x.pem"}, "ca_file"),
    ],
)
def test_what_cannot_work_is_refused_by_name(fields: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RemoteConfig(base_url=URL, **fields)  # type: ignore[arg-type]
