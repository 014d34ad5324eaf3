"""Numbers about calls, engines and the event loop, and how Prometheus reads them.

Counting needs no library and is done on the event loop: calls.py, loop_lag.py,
and for models the engines themselves (engines/metrics.py). exposition.py, which
imports prometheus_client, turns a snapshot of it all into text on another
thread. plugins/metrics.py serves it.
"""

from gateway.metrics.calls import CallMetrics
from gateway.metrics.engines import EngineState, ask_engines
from gateway.metrics.loop_lag import LoopLag

__all__ = ["CallMetrics", "EngineState", "LoopLag", "ask_engines"]
