"""Errors in Ollama's shape: one key, whose text is all that its clients look at."""

import msgspec

from gateway.errors import Problem


def ollama_problem(problem: Problem) -> bytes:
    """The JSON body of an error answer, and the line that ends a stream."""
    return msgspec.json.encode({"error": problem.message})
