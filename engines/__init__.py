"""Runs models; knows nothing of HTTP, teams or policy."""
