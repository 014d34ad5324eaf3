"""The engine kind `remote`: any server that speaks OpenAI's dialect, over HTTP."""
