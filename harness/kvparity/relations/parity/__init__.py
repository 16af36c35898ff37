"""Two sides that score the same tokens: their logprobs, token by token."""
