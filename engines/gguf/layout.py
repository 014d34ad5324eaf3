"""What is opened in a loaded model, as its configuration and its file decide."""

from typing import NamedTuple

from engines.gguf.runner import Shape
from engines.gguf.saved_caches import ModelCaches
from engines.gguf.threads import Threads
from engines.metrics import ModelRecorder


class Layout(NamedTuple):
    """What to open in a loaded model; `generation` is None for one that only embeds."""

    generation: Shape | None
    embedding: Shape
    pooling: str
    threads: Threads
    recorder: ModelRecorder
    saved: ModelCaches | None = None
