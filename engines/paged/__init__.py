"""The production engine: continuous batching over a paged KV cache, in PyTorch and Triton."""
