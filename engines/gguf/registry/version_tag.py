"""Which version of a file a server sends, as far as its answer's headers say (RFC 9110, 8.8).

A tag is what tells one version from another for certain: a strong `ETag`, or the
date of the last change where the answer was made a second later at the earliest,
so that no other change can have the same date.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_SURE_SECONDS = 1.0


def version_tag(headers: Mapping[str, str]) -> str:
    """The tag of what comes with these headers, as `If-Range` takes it; empty if nothing is sure.

    A weak ETag may stay while bytes change, so it is none."""
    tag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    found = tag if tag.startswith('"') else modified if _is_sure(headers) else ""
    return found if found.isascii() and found.isprintable() else ""


def is_of_version(headers: Mapping[str, str], tag: str) -> bool:
    """Whether an answer does not say that it is of another version than `tag`.

    A server that honours `If-Range` need not repeat the date."""
    said = headers.get("ETag" if tag.startswith('"') else "Last-Modified", tag)
    return said == tag


def _is_sure(headers: Mapping[str, str]) -> bool:
    try:
        modified = parsedate_to_datetime(headers["Last-Modified"])
        answered = parsedate_to_datetime(headers["Date"])
        return (answered - modified).total_seconds() >= _SURE_SECONDS
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
