"""A gateway that speaks Ollama's API for the tests of one command each."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.gateway.cli.fake_gateway import FakeGateway, fake_gateway
from tests.gateway.cli.typing_user import TypingUser, typing_user

Typed = Callable[..., Result]
Sitting = Callable[..., AbstractContextManager[TypingUser]]


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


@pytest.fixture
def sitting(fake: FakeGateway, tmp_path: Path) -> Sitting:
    @contextmanager
    def sit(
        *words: str, columns: int = 200, environment: dict[str, str] | None = None
    ) -> Iterator[TypingUser]:
        variables = {"PENSTOCK_DATA_DIR": str(tmp_path), **(environment or {})}
        with typing_user(
            "run", "tiny", "--url", fake.url, *words, columns=columns, environment=variables
        ) as user:
            user.sees("/? for help")
            user.sees(">>> ")
            yield user

    return sit
