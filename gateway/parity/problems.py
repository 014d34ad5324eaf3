"""What keeps a comparison from being made at all."""


class CannotCompare(Exception):
    """A policy, a server, a model or a file of prompts cannot be used; says which and why."""
