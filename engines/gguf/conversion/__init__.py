"""Makes a GGUF file of a HuggingFace checkpoint: `python -m engines.gguf.conversion`, in a child.

The gateway's own process imports none of this; engines/gguf/new_weights.py starts the child.
"""
