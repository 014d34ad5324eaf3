"""What was used, summed up by team, key, model, day and more. `GET /admin/usage`, JSON or CSV."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from gateway.api.admin.admission import admitted, json_reply, read_query
from gateway.api.get_endpoint import get_endpoint
from gateway.api.replies import JsonReply
from gateway.errors import BadRequest
from gateway.ledger import GROUPS, UsageQuery, UsageRecord, UsageTotal
from gateway.ledger.writer import WriterReport
from gateway.policy.problems import quoted, way_out

_SUMS = [name for name in UsageTotal.__struct_fields__ if name != "group"]
_FILTERS = ("team", "key", "principal", "model", "engine", "endpoint", "outcome")


class _Query(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"since": "from", "until": "to"},
):
    by: str = ""  # names with commas between: `team,day`
    since: str | None = None  # a day or a moment; included
    until: str | None = None  # not included; a day is included whole
    team: str | None = None
    key: str | None = None
    principal: str | None = None
    model: str | None = None
    engine: str | None = None
    endpoint: str | None = None
    outcome: str | None = None
    format: Literal["json", "csv"] = "json"
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    offset: Annotated[int, Meta(ge=0, le=10_000_000)] = 0


class _Usage(Struct, kw_only=True):
    rows: Sequence[Any]
    next_offset: int | None
    recording: WriterReport  # what this process has on its way to the ledger


@get_endpoint("/admin/usage", name="admin.usage")
async def show_usage(request: Request[Any, Any, Any]) -> ASGIApp:
    """Sums over groups of calls; `by=call` is one row for each call, newest first."""
    gateway, _ = admitted(request)
    asked = read_query(request, _Query)
    query = _to_query(asked)
    if asked.by == "call":
        records = await gateway.ledger.usage.calls(query)
        rows, columns = [_flat_record(record) for record in records], _record_columns()
    else:
        totals = await gateway.ledger.usage.totals(query)
        rows = [
            {**total.group, **{name: getattr(total, name) for name in _SUMS}} for total in totals
        ]
        columns = [*query.by, *_SUMS]
    is_more = len(rows) > asked.limit
    rows = rows[: asked.limit]
    following = asked.offset + asked.limit if is_more else None
    if asked.format == "csv":
        return _csv_reply(columns, rows, following)  # pyright: ignore[reportReturnType]
    return json_reply(_Usage(rows=rows, next_offset=following, recording=gateway.usage.report()))


def _to_query(asked: _Query) -> UsageQuery:
    by = (
        [name.strip() for name in asked.by.split(",") if name.strip()] if asked.by != "call" else []
    )
    known = [name for name in GROUPS if name != "call"]
    for name in by:
        if name not in known:
            hint = " (it stands alone)" if name == "call" else way_out(name, known)
            raise BadRequest(f"usage cannot be summed up by {quoted(name)}{hint}", param="by")
    if len(set(by)) < len(by):
        raise BadRequest("by names something twice", param="by")
    only = {name: value for name in _FILTERS if (value := getattr(asked, name)) is not None}
    return UsageQuery(
        by=by,
        since=_moment("from", asked.since),
        until=_moment("to", asked.until, ends_day=True),
        only=only,
        limit=asked.limit + 1,  # one more says whether there are more
        offset=asked.offset,
    )


def _moment(param: str, text: str | None, *, ends_day: bool = False) -> datetime | None:
    """A day or a moment in ISO 8601; without a zone it is UTC."""
    if text is None:
        return None
    try:
        if len(text) == 10:
            day = datetime.fromisoformat(text).date()
            clock = time.max if ends_day else time.min
            return datetime.combine(day, clock, tzinfo=UTC)
        # In a query, `+` stands for a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{param} is {text[:40]!r}; write a day such as 2026-03-01 or a moment such as "
            "2026-03-01T12:00:00Z",
            param=param,
        ) from None


def _record_columns() -> list[str]:
    return list(UsageRecord.__struct_fields__)


def _flat_record(record: UsageRecord) -> dict[str, Any]:
    return msgspec.structs.asdict(record)


def _csv_reply(
    columns: Sequence[str], rows: Sequence[dict[str, Any]], following: int | None
) -> JsonReply:
    text = io.StringIO()
    writer = csv.writer(text)  # RFC 4180: CRLF, quotes where needed
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    headers = {
        "content-type": "text/csv; charset=utf-8",
        "content-disposition": 'attachment; filename="usage.csv"',
        "cache-control": "no-store",
    }
    if following is not None:
        headers["x-penstock-next-offset"] = str(following)
    return JsonReply(text.getvalue().encode(), headers=headers)


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: behind a glob, callers choose the names."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return f"'{value}"
    return "" if value is None else value
