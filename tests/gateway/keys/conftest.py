from collections.abc import AsyncGenerator

import pytest

from tests.gateway.keys.desk import Desk


@pytest.fixture
async def desk() -> AsyncGenerator[Desk, None]:
    desk = Desk()
    async with desk.keys:
        yield desk
        desk.ledger.is_down = False
        desk.ledger.hold = None
