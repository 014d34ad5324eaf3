"""Hosts any local engine in a child process of its own, behind the same protocol.

    engine = ProcessEngine("laptop", EngineSpec.of("engines.gguf.engine:GgufEngine", config))

A native fault ends the process that it happens in. Here that is the child: its
calls end with `Unavailable`, it is started again, and the gateway goes on. See
docs/engines.md#isolation.

`process_engine.py` is the engine that the gateway sees, `supervisor.py` keeps a
child running, `child_process.py` is one child as its parent sees it, `child.py`
the child itself, `wire.py` what the two say to each other. None of them knows
which engine it is.
"""

from engines.process.process_engine import ProcessEngine
from engines.process.spec import EngineSpec
from engines.process.supervisor import Supervision

__all__ = ["EngineSpec", "ProcessEngine", "Supervision"]
