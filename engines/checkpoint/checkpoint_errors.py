"""Why a folder of weights cannot be loaded.

Both are engine errors, so an engine that loads when it is first asked needs no
translation. The message names the file, the value and the way out; it is for whoever
runs the gateway, and holds no path but the names of files in the folder.
"""

from engines.errors import Unavailable, Unsupported


class CheckpointUnavailable(Unavailable):
    """Files that are missing, cut short, or at odds with each other."""


class CheckpointUnsupported(Unsupported):
    """A checkpoint that may be in perfect order, of a kind that this engine cannot run."""
