"""The audit log, and whether its chain holds.

`GET /admin/audit`, `GET /admin/audit/verification`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from gateway.api.admin.admission import admitted, json_reply, read_query
from gateway.api.get_endpoint import get_endpoint
from gateway.errors import BadRequest
from gateway.ledger import AuditHead, AuditRow

Number = Annotated[int, Meta(ge=1, le=2**53)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    action: str | None = None
    subject: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Number | None = None  # the last row's number of the page before


class _Expected(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seq: Number | None = None
    hash: Hash | None = None


class _Page(Struct, kw_only=True):
    rows: Sequence[dict[str, Any]]
    next: int | None  # the `before` of the next page


@get_endpoint("/admin/audit", name="admin.audit")
async def list_audit(request: Request[Any, Any, Any]) -> ASGIApp:
    """What was done, newest first."""
    gateway, _ = admitted(request)
    query = read_query(request, _Query)
    rows = await gateway.ledger.audit.rows(
        before=query.before,
        action=query.action,
        subject=query.subject,
        limit=query.limit + 1,
    )
    page = rows[: query.limit]
    following = page[-1].seq if len(rows) > len(page) else None
    return json_reply(_Page(rows=[flat(row) for row in page], next=following))


@get_endpoint("/admin/audit/verification", opt={"endpoint": "admin.audit"})
async def verify_audit(request: Request[Any, Any, Any]) -> ASGIApp:
    """Go through the whole chain; `seq` and `hash` are a head that was noted elsewhere."""
    gateway, _ = admitted(request)
    asked = read_query(request, _Expected)
    if (asked.seq is None) != (asked.hash is None):
        raise BadRequest("seq and hash name a row together; send both", param="seq")
    expected = None
    if asked.seq is not None and asked.hash is not None:
        expected = AuditHead(asked.seq, asked.hash)
    found = await gateway.ledger.audit.verify(expected=expected)
    return json_reply({"holds": found.bad_seq is None, **msgspec.structs.asdict(found)})


def flat(row: AuditRow) -> dict[str, Any]:
    """A row with its entry's fields beside its own; `before` and `after` as JSON values."""
    entry = msgspec.structs.asdict(row.entry)
    for name in ("before", "after"):
        if entry[name] is not None:
            entry[name] = _decoded(entry[name])
    return {"seq": row.seq, **entry, "previous": row.previous, "hash": row.hash}


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # somebody changed it: verification says so
        return text
