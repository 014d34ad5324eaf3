"""What the GPU runs, one operation a file.

Each file has a public function, which runs Triton where the tensors are on a GPU, and beside it
`reference`, the same in plain torch: what CPUs run, and what the tests hold the kernel to.
`launch` is the Triton path by itself; tests call it under Triton's interpreter.
"""
