"""Finds keys in the ledger for a command, with or without a gateway that runs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gateway.keys import ApiKey
    from gateway.settings import Settings


async def listed(settings: "Settings", team: str | None) -> "Sequence[ApiKey]":
    """Every key, or every one of a team. Raises `LedgerNotOpened`."""
    from gateway.ledger import open_ledger

    async with open_ledger(settings.ledger_url) as ledger:
        return await ledger.keys(team)


def only_one(given: str, keys: "Sequence[ApiKey]") -> "ApiKey":
    """The key with this public id, or start of one, or the one whose whole text this is."""
    from gateway.keys import id_in

    key_id = id_in(given)
    fitting = [key for key in keys if key.id == key_id]
    fitting = fitting or [key for key in keys if key_id and key.id.startswith(key_id)]
    if not fitting:
        raise click.ClickException(
            f"there is no key {key_id!r}; `penstock keys list` shows the keys that there are"
        )
    if len(fitting) > 1:
        ids = ", ".join(key.id for key in fitting[:10])
        raise click.ClickException(f"{key_id!r} is the start of {len(fitting)} keys: {ids}")
    return fitting[0]
