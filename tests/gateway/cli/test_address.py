import pytest

from gateway.cli.address import default_url, is_elsewhere

VARIABLES = ("PENSTOCK_HOST", "PENSTOCK_PORT", "OLLAMA_HOST")


@pytest.mark.parametrize(
    ("environ", "url", "elsewhere"),
    [
        ({}, "http://127.0.0.1:8080", False),
        ({"PENSTOCK_PORT": "9000"}, "http://127.0.0.1:9000", False),
        ({"PENSTOCK_HOST": "0.0.0.0"}, "http://127.0.0.1:8080", False),
        ({"PENSTOCK_HOST": "::"}, "http://127.0.0.1:8080", False),
        ({"OLLAMA_HOST": "0.0.0.0"}, "http://127.0.0.1:11434", False),
        ({"OLLAMA_HOST": "localhost:9000"}, "http://localhost:9000", False),
        ({"OLLAMA_HOST": "[::1]:9000"}, "http://[::1]:9000", False),
        ({"OLLAMA_HOST": "https://gpu-box/llm"}, "https://gpu-box:443/llm", True),
        ({"OLLAMA_HOST": "gpu-box", "PENSTOCK_PORT": "9000"}, "http://127.0.0.1:9000", False),
    ],
)
def test_where_a_gateway_is_by_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str, elsewhere: bool
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert default_url() == url
    assert is_elsewhere() is elsewhere
