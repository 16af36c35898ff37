"""The codec lab: what coding a KV cache costs in bytes and in logprobs."""
