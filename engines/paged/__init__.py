"""Continuous batching on a paged KV cache, in PyTorch and Triton."""
