"""Declares what is read with GET, and so with HEAD, too (RFC 9110, section 9.3.2).

Whoever only wants to know whether a path answers asks with HEAD: `wget --spider`, and load
balancers' checks. The answer is GET's without its body, which `JsonReply` leaves out.
"""

from collections.abc import Callable
from typing import Any

from litestar import route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler


def get_endpoint(
    path: str, *, name: str | None = None, opt: dict[str, Any] | None = None
) -> Callable[[Any], HTTPRouteHandler]:
    """Serve GET and HEAD of this path; `name` is the endpoint's, or `opt` says it."""
    return route(
        path, http_method=[HttpMethod.GET, HttpMethod.HEAD], name=name, opt=opt, status_code=200
    )
