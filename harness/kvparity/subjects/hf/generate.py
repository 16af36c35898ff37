"""The model's own ``generate()`` over one sequence, with the harness choosing the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from kvparity.core.errors import SubjectError
from kvparity.core.relied.transformers import forget_sizes
from kvparity.subjects.hf.caches import CacheRow, SessionCache
from kvparity.subjects.hf.operations import reporting
from kvparity.subjects.hf.protocols import CausalLM, ModelConfig
from kvparity.subjects.hf.run_counts import ForwardCalled, Observation
from kvparity_kernels.stream import listening

Choose = Callable[[int, Tensor], int]
"""(position, float32 logits[vocab]) -> the token at ``position``."""
AfterStep = Callable[[SessionCache, int], None]
"""(the cache, positions filled) -> nothing; called before every forward but the first."""


class _Choosing(LogitsProcessor):  # type: ignore[misc] # transformers is untyped
    """Shows each next-token row to ``choose`` and leaves only the chosen token possible."""

    def __init__(
        self,
        length: int,
        choose: Choose,
        seen: Observation,
        after_step: AfterStep | None,
        config: ModelConfig,
    ) -> None:
        self.length, self.choose, self.seen, self.after_step = length, choose, seen, after_step
        self.config = config
        self.chosen: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        filled = input_ids.shape[1]
        token = self.choose(filled, scores[0])
        self.chosen.append(token)
        if self.after_step is not None and filled + 1 < self.length:
            place = CacheRow(self.seen.cache, 0, list(range(filled)), filled)
            self.after_step(SessionCache([place], self.config), filled)
        forced = torch.full_like(scores, -float("inf"))
        forced[0, token] = 0
        return forced


@contextmanager
def _reporting(model: CausalLM, name: str) -> Iterator[None]:
    """Report what each forward of the loop computes, if somebody listens."""
    with reporting(model) as reporter:

        def begun(call: ForwardCalled) -> None:
            filled = 0 if call.cache is None else int(call.cache.get_seq_length())
            stop = filled + call.tokens
            own, seen = ([(name, p) for p in range(b, stop)] for b in (filled, 0))
            reporter.begin([own], [seen])

        with listening(ForwardCalled, begun):
            yield


def generate(
    model: CausalLM,
    name: str,
    prompt: Sequence[int],
    length: int,
    choose: Choose,
    *,
    static: bool,
    pad_token: int,
    seen: Observation,
    after_step: AfterStep | None,
) -> None:
    """Run ``generate()`` over the sequence ``name`` until ``length`` tokens are there.

    It is greedy over what ``choose`` forces.

    No end token, no penalties, no other processors: ``choose`` sees the raw next-token logits,
    which transformers converts to float32. Compiling is off, because a compiled graph could not be
    observed. One row of logits is alive at a time.

    Raises:
        SubjectError: the loop did not follow the chosen tokens.
    """
    config = GenerationConfig(
        max_new_tokens=length - len(prompt),
        do_sample=False,
        num_beams=1,
        use_cache=True,
        cache_implementation="static" if static else None,
        disable_compile=True,
        pad_token_id=pad_token,
        eos_token_id=None,
        bos_token_id=None,
    )
    forget_sizes(model)
    choosing = _Choosing(
        length, choose, seen, after_step, model.config.get_text_config(decoder=True)
    )
    ids = torch.tensor([list(prompt)], dtype=torch.int64, device=model.device)
    with torch.inference_mode(), _reporting(model, name):
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            logits_processor=LogitsProcessorList([choosing]),
        )
    found, wanted = out[0].tolist(), [*prompt, *choosing.chosen]
    if found != wanted or len(found) != length:
        raise SubjectError(
            f"generate() returned {len(found)} tokens of which "
            f"{sum(a == b for a, b in zip(found, wanted, strict=False))} are the chosen ones; "
            f"expected {length}"
        )
