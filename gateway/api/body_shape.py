"""Bounds a JSON body before it is parsed: how deep, how many fields, how many values.

Two bytes of JSON (`{}` or `1,`) become up to a hundred of Python objects, so a
bound on bytes alone does not bound memory. Nothing here builds an object of
what it reads.
"""

import re

from gateway.errors import BadRequest

MAX_DEPTH = 200
MAX_FIELDS = 250_000  # keys, over all objects
# Items of lists and values of keys together. OpenAI takes 300,000 tokens in one
# embeddings request; that is what a list may be long for.
MAX_VALUES = 1_000_000

# A whole string is one match, so what is in it costs nothing and counts for nothing.
_MARK = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},:]', re.DOTALL)


def check_shape(raw: bytes) -> None:
    """Raises `BadRequest` for a body beyond the bounds; any other passes, be it JSON or not."""
    # Cheap and one-sided: marks inside strings count too, so only a body with very
    # many of them is looked at closely.
    if (
        raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH
        and raw.count(b":") <= MAX_FIELDS
        and raw.count(b",") <= MAX_VALUES
    ):
        return
    depth = num_fields = num_values = 0
    for found in _MARK.finditer(raw):
        mark = found[0]
        if mark in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels")
        elif mark in b"]}":
            depth -= 1
        elif mark == b":":
            num_fields += 1
            if num_fields > MAX_FIELDS:
                raise BadRequest(f"the body has more than {MAX_FIELDS} fields")
        elif mark == b",":
            num_values += 1
            if num_values > MAX_VALUES:
                raise BadRequest(f"the body has more than {MAX_VALUES} values")
