"""Names that OpenAI's API gives a form: tools, functions, schemas."""

import re

from gateway.api.body_errors import shortened
from gateway.errors import BadRequest

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_name(name: str, field: str) -> str:
    """Return `name`. Raises `BadRequest` unless it is 1 to 64 letters, digits, `_` or `-`."""
    if _NAME.fullmatch(name) is None:
        raise BadRequest(
            f"{field} is {shortened(name)!r}; names are 1 to 64 letters, digits, _ or -",
            param=field,
        )
    return name
