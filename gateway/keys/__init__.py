"""API keys: made, shown once, checked on every call, changed, revoked.

keys.py         what can be done with keys; where to start reading
known_keys.py   the records that this process remembers, and how they stay true
invalidations   how one process tells the others that a key has changed
row.py          what is shown of a key, and kept in the audit log
minting.py      what somebody who makes a key may put into it
text.py         what a key looks like
pepper.py       the secret that the ledger does not have
"""

from gateway.keys.invalidations import Invalidations, OwnProcess, open_invalidations
from gateway.keys.keys import REMEMBER_SECONDS, Keys, NewKey
from gateway.keys.minting import check_minting
from gateway.keys.pepper import Pepper, PepperInvalid, open_pepper
from gateway.keys.row import KeyRow, row_of
from gateway.keys.text import PREFIX, id_in, is_id
from gateway.ledger import ApiKey, KeyChange

__all__ = [
    "PREFIX",
    "REMEMBER_SECONDS",
    "ApiKey",
    "Invalidations",
    "KeyChange",
    "KeyRow",
    "Keys",
    "NewKey",
    "OwnProcess",
    "Pepper",
    "PepperInvalid",
    "check_minting",
    "id_in",
    "is_id",
    "open_invalidations",
    "open_pepper",
    "row_of",
]
