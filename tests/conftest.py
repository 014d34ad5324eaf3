"""Set before anything is imported: how Triton kernels and random examples run in these tests."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from gateway.logs import QUIET

# A busy machine makes any example slow once; no test here is about time.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")

# A shell starts what runs in its background deaf to Ctrl-C, and children inherit that: the commands
# that tests interrupt would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Triton looks at this when it is imported, and any test may be the first to import it. Where there
# is a GPU, kernels are tested on it; elsewhere Triton's interpreter runs them on the CPU.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Forget what commands of ours, run by a fixture or a test, have set of logging.

    `structlog.testing.capture_logs` hears nothing below the level that is set.
    """
    structlog.reset_defaults()
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in QUIET)]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; only then is torch asked."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
