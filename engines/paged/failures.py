"""What others are told of a failure.

An error knows the frames it came through, and their variables hold tensors: whoever keeps
it, keeps a model's memory. So the log has them, and nobody else.
"""

from engines.errors import EngineError


def without_frames(error: EngineError) -> EngineError:
    """The same, and no way from it to where it was raised."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
