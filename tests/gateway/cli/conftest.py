"""A gateway that speaks Ollama's API for the tests of one command each."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.gateway.cli.fake_gateway import FakeGateway, fake_gateway

Typed = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeGateway]:
    with fake_gateway() as running:
        yield running


@pytest.fixture
def typed(fake: FakeGateway) -> Typed:
    """Types a `penstock` command at the fake gateway."""

    def type_(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, [*words, "--url", fake.url], input=stdin)

    return type_
