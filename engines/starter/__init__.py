"""The starter model: a small chat model that ships in the package.

The same weights lie here twice: `starter.gguf` for the gguf engine, and `model.safetensors`
with its tokenizer and configuration for the paged engine. `train.py` made both; README.md
says how well they do. Importing this package loads nothing.
"""

from pathlib import Path

NAME = "starter"
"""The name that clients ask for."""

SAFETENSORS_DIR = Path(__file__).parent
"""The directory with `model.safetensors`, `config.json`, `tokenizer.json` and the rest."""

GGUF_PATH = SAFETENSORS_DIR / "starter.gguf"
