"""Ollama's dialect: one file for each endpoint. What each field does is in docs/ollama-api.md."""
