"""Plain transformers and torch, nothing of kvparity: does generate() agree with a full rescore?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def torch_logprob(logits: Tensor, ids: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1).gather(1, ids[:, None])[:, 0]


@torch.inference_mode()
def generate_and_rescore(
    model: Any,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    logprob: Callable[[Tensor, Tensor], Tensor] = torch_logprob,
    **more: Any,
) -> tuple[int, int, float]:
    """(tokens whose logprob bits differ, logits rows whose bits differ, largest |difference|)."""
    tokens, rows, largest = 0, 0, 0.0
    for prompt, continuation in zip(prompts, continuations, strict=True):
        full = torch.tensor([[*prompt, *continuation]])
        out = model.generate(
            full[:, : len(prompt)],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=len(continuation),
            do_sample=False,
            pad_token_id=0,
            prefix_allowed_tokens_fn=lambda _, ids, full=full: [int(full[0, len(ids)])],
            output_logits=True,
            return_dict_in_generate=True,
            **more,
        )
        assert out.sequences.equal(full)
        rollout = torch.cat(out.logits)
        rescore = model(full).logits[0, len(prompt) - 1 : -1].float()
        a, b = (logprob(x, full[0, len(prompt) :]) for x in (rollout, rescore))
        tokens += int((a.view(torch.int32) != b.view(torch.int32)).sum())
        rows += int((rollout.view(torch.int32) != rescore.view(torch.int32)).any(1).sum())
        largest = max(largest, float((a.double() - b.double()).abs().max()))
    return tokens, rows, largest
