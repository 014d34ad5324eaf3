"""A child whose GPU has failed for good: nothing but another process helps."""

from pathlib import Path

import msgspec
import pytest
import structlog

from engines.errors import Unavailable
from engines.paged.config import PagedConfig
from engines.process import EngineSpec, ProcessEngine
from engines.protocol import Finished
from tests.engines.process import children
from tests.engines.process.hosted import QUICK, asking, events_of, is_gone, pid_of, until_ready

CONFIG = PagedConfig(max_sequences=4, max_batch_tokens=64, num_threads=1)


async def answered(engine: ProcessEngine) -> bool:
    events = await events_of(engine, asking(model="starter", max_tokens=2))
    return isinstance(events[-1], Finished)


@pytest.mark.parametrize("is_loaded", [True, False], ids=["in a step", "in a load"])
async def test_it_is_replaced_though_nobody_calls_any_more(tmp_path: Path, is_loaded: bool) -> None:
    spec = EngineSpec.of(f"{children.HERE}:failing_paged", CONFIG, data_dir=tmp_path)
    # Nobody waits so long here: it is what it says that has it replaced.
    engine = ProcessEngine(
        "hosted", spec, supervision=msgspec.structs.replace(QUICK, hang_seconds=3000.0)
    )
    await engine.start()
    first = pid_of(engine)
    try:
        with structlog.testing.capture_logs() as logs:
            if is_loaded:
                assert await answered(engine)
            (tmp_path / "fail").touch()
            with pytest.raises(Unavailable, match=r"illegal memory access|being restarted"):
                await answered(engine)

            while engine.pid in (first, None):
                await until_ready(engine)

            assert await answered(engine)
    finally:
        await engine.close()

    assert is_gone(first)
    reasons = [line["reason"] for line in logs if line["event"] == "engine_process_failed"]
    assert reasons == [
        "gave up (the GPU cannot be used by this process any more: "
        "CUDA error: an illegal memory access was encountered)"
    ]
