"""Measures how fast a server or an engine answers.

A workload makes conversations, a load says when they begin, a subject answers
them, and a run keeps what its client saw. What each reported figure means is in
docs/benchmarks.md. Nothing here prints; `gateway/cli/bench.py` does.
"""
