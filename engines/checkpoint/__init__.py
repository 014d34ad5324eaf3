"""What the files of a HuggingFace checkpoint say, read without torch and without weights.

Two engines need it: paged runs such checkpoints, gguf makes GGUF files of them.
"""
