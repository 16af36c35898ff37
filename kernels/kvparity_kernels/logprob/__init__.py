"""Log probabilities of chosen tokens, in one fused pass over the logits."""

from kvparity_kernels.logprob.api import logprob

__all__ = ["logprob"]
