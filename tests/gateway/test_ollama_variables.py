import pytest

from gateway.ollama_variables import OllamaHost, is_true, ollama_host, twin_settings
from gateway.settings import read_settings


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "path"),
    [
        ("0.0.0.0", "http", "0.0.0.0", 11434, ""),
        ("0.0.0.0:9000", "http", "0.0.0.0", 9000, ""),
        (":9000", "http", "127.0.0.1", 9000, ""),
        ("gpu-box", "http", "gpu-box", 11434, ""),
        ("http://gpu-box", "http", "gpu-box", 80, ""),
        ("https://gpu-box", "https", "gpu-box", 443, ""),
        ("https://gpu-box:8443/llm/", "https", "gpu-box", 8443, "/llm"),
        ("::1", "http", "::1", 11434, ""),
        ("[::1]:9000", "http", "::1", 9000, ""),
        ("  '10.0.0.7' ", "http", "10.0.0.7", 11434, ""),
        ("10.0.0.7:99999", "http", "10.0.0.7", 11434, ""),
        ("10.0.0.7:many", "http", "10.0.0.7", 11434, ""),
    ],
)
def test_a_host_is_read_as_ollama_reads_it(
    text: str, scheme: str, host: str, port: int, path: str
) -> None:
    assert ollama_host(text) == OllamaHost(scheme, host, port, path)


def test_no_host_is_none() -> None:
    assert ollama_host("") is None
    assert ollama_host(" ") is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [("1", True), ("true", True), ("2", True), ("0", False), ("false", False), ("", False)],
)
def test_a_switch_is_on_or_off(text: str, meant: bool) -> None:
    assert is_true(text) is meant


def test_settings_take_what_ollamas_variables_say() -> None:
    settings = read_settings({"OLLAMA_HOST": "0.0.0.0:9000", "OLLAMA_DEBUG": "1"})

    assert (settings.host, settings.port, settings.log_level) == ("0.0.0.0", 9000, "debug")


@pytest.mark.parametrize("own", [{"PENSTOCK_HOST": "::1"}, {"PENSTOCK_PORT": "7000"}])
def test_one_of_our_own_leaves_nothing_of_ollamas(own: dict[str, str]) -> None:
    with_theirs = read_settings({"OLLAMA_HOST": "0.0.0.0:9000", **own})

    assert with_theirs == read_settings(own)


def test_a_log_level_of_our_own_wins() -> None:
    environ = {"OLLAMA_DEBUG": "1", "PENSTOCK_LOG_LEVEL": "error"}

    assert read_settings(environ).log_level == "error"
    assert twin_settings(environ, {"log_level"}) == {}
