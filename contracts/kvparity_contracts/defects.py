"""Reported defects of engines and trainers, and the control that stands for each. Pure data.

A defect is expressed where it can exist at the level of kernels, a decoder, a cache, a sampler or
scoring; the others say what they would take.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvparity_contracts.controls import CONTROLS


@dataclass(frozen=True)
class Defect:
    """One report.

    ``controls`` express it; where there are none, ``reason`` says what it would take.
    ``reported``: the issue or page that tells of it, where it is not that of its first control.
    """

    number: int
    title: str
    controls: tuple[str, ...] = ()
    reported: str = ""
    reason: str = ""

    @property
    def source(self) -> str:
        """The issue or page that tells of it."""
        return self.reported or CONTROLS[self.controls[0]].source

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that must catch it: all that its controls are meant for."""
        wanted = {each for name in self.controls for each in CONTROLS[name].relations}
        return tuple(sorted(wanted))


# fmt: off
DEFECTS = (
    Defect(1,
           "A false logprob difference of 0.16: the prefix went through text and was encoded again",
           ("retokenised",)),
    Defect(2, "An importance ratio of 2 at temperature 0.6: raw logprobs against scaled ones",
           ("raw-rollout-logprobs",)),
    Defect(3, "The temperature is applied to logprobs instead of logits", ("scaled-logprobs",)),
    Defect(4, "Rescoring has a temperature of its own, whatever was sampled at",
           ("temperature-ignored",), reported="radixark/miles#1345"),
    Defect(5, "Renormalisation over the nucleus leaks the log of its mass",
           ("top-p-renormalised",)),
    Defect(6, "log(softmax) in decode, log_softmax in rescoring: about 1e-6", ("log-of-softmax",)),
    Defect(7, "The logprob that is inlined in the sampler is not the trainer's",
           ("inlined-logprob",)),
    Defect(8, "The block of an RMSNorm falls from 1024 to 256 at 256 rows",
           ("norm-block-by-rows",)),
    Defect(9, "With an FP8 cache decode alone has tiles of 96 keys: from position 97 on",
           ("tile-by-store",)),
    Defect(10, "A neighbour's tenth query token changes everybody's tile", ("tile-by-neighbour",)),
    Defect(11, "Causal becomes non-causal where the batch has one query each",
           ("kernel-by-longest-query",)),
    Defect(12, "A query tile of 64 or 128 by the mean length of the batch",
           ("tile-by-mean-query",)),
    Defect(13, "Splits follow from the occupancy of the whole batch", ("split-by-batch",)),
    Defect(14, "MLA has 256 // batch splits", ("splits-over-batch",)),
    Defect(15, "Paths with a sliding window drop the fixed split size", ("window-drops-split",)),
    Defect(16, "Cascade attention comes on where sequences share a prefix",
           ("cascade-of-shared-prefix",)),
    Defect(17, "Masked or unmasked blocks are chosen by the alignment of the queries",
           ("mask-follows-alignment",)),
    Defect(18, "2^x by polynomial in one of prefill and decode, from 512 keys on",
           ("polynomial-exp2",)),
    Defect(19, "The tile of the bias follows the number of queries: one element, one ulp",
           ("tile-by-query-count",)),
    Defect(20, "Decode takes another path above a bucket of 32", ("kernel-by-bucket",)),
    Defect(21, "Tiles of 64 or 128 rows, and contraction that differs between them",
           ("linear-contracts-by-rows",)),
    Defect(22, "Chunk boundaries come from the queue's budget",
           ("chunk-from-budget", "split-from-chunk",)),
    Defect(23, "A cache hit changes 18 of 40 greedy outputs", ("hit-merges-states",)),
    Defect(24, "cuBLASLt: five of seven row counts disagree with one row",
           ("linear-kernel-by-rows",)),
    Defect(25, "Products of few columns take another kernel, or split-K, by their rows",
           ("linear-split-where-narrow",)),
    Defect(26, "The split-K count follows the tokens: 1e-2 on every token",
           ("linear-split-by-tokens",)),
    Defect(27, "Autotuning picks other winners on 13 of 22 entries across ranks",
           ("tuned-elsewhere",)),
    Defect(28, "Prefill differs between launches at 12 of 32 contexts", ("order-by-launch",)),
    Defect(29, "The order in which a reduce-scatter combines experts",
           reported="vllm-project/vllm#45683",
           reason="experts over several devices; the decoder here is dense and on one"),
    Defect(30, "Expert ids are replayed, their weights computed anew",
           reported="radixark/miles#2722",
           reason="a mixture of experts; the decoder here is dense"),
    Defect(31, "FSDP casts the RoPE table to bfloat16", ("rope-table-bfloat16",)),
    Defect(32, "Positions in bfloat16 are inexact above 256", ("positions-inexact",)),
    Defect(33, "The sampler's path changes logprobs from 45 co-resident sequences on",
           ("sampler-by-batch",)),
    Defect(34, "Invariant in eager mode, not with CUDA graphs",
           ("replays-captured-splits", "frozen-length",)),
    Defect(35, "A ring cache is overwritten and the mask only truncated", ("ring-overwritten",)),
    Defect(36, "A reused prefix finds a stale ring", ("ring-stale-on-reuse",)),
    Defect(37, "The window was missing at plan time and its mask compiled out",
           ("window-compiled-out",)),
    Defect(38, "Decode's window is one key short", ("window-one-short",)),
    Defect(39, "Every decoded token is given position 0", ("decode-at-position-zero",)),
    Defect(40, "Left padding shifts positions", ("padding-shifts-positions", "padding-leaks",)),
    Defect(41, "The padding mask is skipped at a batch of one", ("padding-mask-skipped-alone",)),
    Defect(42, "Keys of old weights stay in the cache after a weight sync",
           ("stale-after-update",)),
    Defect(43, "Prompt logprobs of cached positions are never written",
           ("cached-rows-uninitialised",)),
    Defect(44, "A prefix that is one token off shifts RoPE",
           ("prefix-shifts-positions", "position-off-by-one",)),
    Defect(45, "One wrapper ignores the scales of keys and values, the other applies them",
           ("scale-ignored-in-prefill",)),
    Defect(46, "The FP8 scale is fixed by the first real input", ("scale-from-first-input",)),
    Defect(47, "Sliding-window attention skips the write-back: outputs right, cache wrong",
           ("writeback-skipped",)),
    Defect(48, "Mamba2's scan against its recurrence",
           reported="vllm-project/vllm#42259, vllm-project/vllm#55627",
           reason="a state-space layer; the decoder here has attention alone"),
    Defect(49, "A stale convolution checkpoint under a prefill graph",
           reported="sgl-project/sglang#34184",
           reason="a state-space layer's convolution; the decoder here has attention alone"),
    Defect(50, "Verification computes k + 1 rows per request, decode one",
           ("linear-by-rows-per-request",)),
    Defect(51, "Dequantisation in the kernel rounds code times scale to bfloat16",
           ("dequant-rounds",)),
)
# fmt: on
"""All of them, by number."""


def defects_of(control: str) -> tuple[int, ...]:
    """The numbers of the defects that a control expresses."""
    return tuple(each.number for each in DEFECTS if control in each.controls)
