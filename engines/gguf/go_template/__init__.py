"""Chat templates in Go's template language, as Ollama's models bring them, said in jinja."""
