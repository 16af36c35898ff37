"""The reference decoder: the llama, qwen2 and qwen3 family on fixed-order kernels."""
