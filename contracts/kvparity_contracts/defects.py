"""Reported defects of engines and trainers, and the control that stands for each. Pure data.

A defect is expressed where it can exist at the level of kernels, a decoder, a cache, a sampler or
scoring; the others say what they would take.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvparity_contracts.controls import CONTROLS


@dataclass(frozen=True)
class Defect:
    """One report. ``source``: the issue or page that tells of it.

    ``controls`` express it; where there are none, ``reason`` says what it would take.
    """

    number: int
    title: str
    source: str
    controls: tuple[str, ...] = ()
    reason: str = ""

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that must catch it: all that its controls are meant for."""
        wanted = {each for name in self.controls for each in CONTROLS[name].relations}
        return tuple(sorted(wanted))


# fmt: off
DEFECTS = (
    Defect(1,
           "A false logprob difference of 0.16: the prefix went through text and was encoded again",
           "vllm-project/vllm#53692", ("retokenised",)),
    Defect(2, "An importance ratio of 2 at temperature 0.6: raw logprobs against scaled ones",
           "huggingface/trl#4159", ("raw-rollout-logprobs",)),
    Defect(3, "The temperature is applied to logprobs instead of logits",
           "PrimeIntellect-ai/prime-rl#697", ("scaled-logprobs",)),
    Defect(4, "Rescoring has a temperature of its own, whatever was sampled at",
           "radixark/miles#1345", ("temperature-ignored",)),
    Defect(5, "Renormalisation over the nucleus leaks the log of its mass",
           "huggingface/trl#6789, vllm-project/vllm#42259", ("top-p-renormalised",)),
    Defect(6, "log(softmax) in decode, log_softmax in rescoring: about 1e-6",
           "sgl-project/sglang#30821", ("log-of-softmax",)),
    Defect(7, "The logprob that is inlined in the sampler is not the trainer's",
           "pytorch/torchtitan#3629", ("inlined-logprob",)),
    Defect(8, "The block of an RMSNorm falls from 1024 to 256 at 256 rows",
           "vllm-project/vllm#48271", ("norm-block-by-rows",)),
    Defect(9, "With an FP8 cache decode alone has tiles of 96 keys: from position 97 on",
           "sgl-project/sglang#25790, vllm-project/vllm#54035", ("tile-by-store",)),
    Defect(10, "A neighbour's tenth query token changes everybody's tile",
           "vllm-project/vllm#51902", ("tile-by-neighbour",)),
    Defect(11, "Causal becomes non-causal where the batch has one query each",
           "vllm-project/flash-attention#169", ("kernel-by-longest-query",)),
    Defect(12, "A query tile of 64 or 128 by the mean length of the batch",
           "flashinfer-ai/flashinfer#2424", ("tile-by-mean-query",)),
    Defect(13, "Splits follow from the occupancy of the whole batch",
           "sgl-project/sgl-flash-attn#43", ("split-by-batch",)),
    Defect(14, "MLA has 256 // batch splits",
           "lightseekorg/tokenspeed#904", ("splits-over-batch",)),
    Defect(15, "Paths with a sliding window drop the fixed split size",
           "sgl-project/sglang#26412", ("window-drops-split",)),
    Defect(16, "Cascade attention comes on where sequences share a prefix",
           "vllm-project/vllm#32561", ("cascade-of-shared-prefix",)),
    Defect(17, "Masked or unmasked blocks are chosen by the alignment of the queries",
           "sgl-project/sglang#33417", ("mask-follows-alignment",)),
    Defect(18, "2^x by polynomial in one of prefill and decode, from 512 keys on",
           "Dao-AILab/flash-attention#2596", ("polynomial-exp2",)),
    Defect(19, "The tile of the bias follows the number of queries: one element, one ulp",
           "sgl-project/sglang#35161", ("tile-by-query-count",)),
    Defect(20, "Decode takes another path above a bucket of 32",
           "pegainfer-project/pegainfer#623", ("kernel-by-bucket",)),
    Defect(21, "Tiles of 64 or 128 rows, and contraction that differs between them",
           "RL-Align/RL-Kernel#394", ("linear-contracts-by-rows",)),
    Defect(22, "Chunk boundaries come from the queue's budget",
           "pegainfer-project/pegainfer#688", ("chunk-from-budget", "split-from-chunk",)),
    Defect(23, "A cache hit changes 18 of 40 greedy outputs",
           "sgl-project/sglang#34683", ("hit-merges-states",)),
    Defect(24, "cuBLASLt: five of seven row counts disagree with one row",
           "NVIDIA/TransformerEngine#2986", ("linear-kernel-by-rows",)),
    Defect(25, "Products of few columns take another kernel, or split-K, by their rows",
           "local-inference-lab/vllm#719", ("linear-split-where-narrow",)),
    Defect(26, "The split-K count follows the tokens: 1e-2 on every token",
           "sgl-project/sglang#37292", ("linear-split-by-tokens",)),
    Defect(27, "Autotuning picks other winners on 13 of 22 entries across ranks",
           "NVIDIA/Megatron-LM#6966", ("tuned-elsewhere",)),
    Defect(28, "Prefill differs between launches at 12 of 32 contexts",
           "vllm-project/vllm#53906", ("order-by-launch",)),
    Defect(29, "The order in which a reduce-scatter combines experts",
           "vllm-project/vllm#45683",
           reason="experts over several devices; the decoder here is dense and on one"),
    Defect(30, "Expert ids are replayed, their weights computed anew",
           "radixark/miles#2722", reason="a mixture of experts; the decoder here is dense"),
    Defect(31, "FSDP casts the RoPE table to bfloat16",
           "pytorch/torchtitan bitwise_parity.md", ("rope-table-bfloat16",)),
    Defect(32, "Positions in bfloat16 are inexact above 256",
           "huggingface/candle#3520", ("positions-inexact",)),
    Defect(33, "The sampler's path changes logprobs from 45 co-resident sequences on",
           "vllm-project/vllm#51187", ("sampler-by-batch",)),
    Defect(34, "Invariant in eager mode, not with CUDA graphs",
           "vllm-project/vllm#28131", ("replays-captured-splits", "frozen-length",)),
    Defect(35, "A ring cache is overwritten and the mask only truncated",
           "Lightning-AI/litgpt#2182", ("ring-overwritten",)),
    Defect(36, "A reused prefix finds a stale ring",
           "sgl-project/sglang#30339", ("ring-stale-on-reuse",)),
    Defect(37, "The window was missing at plan time and its mask compiled out",
           "sgl-project/sglang#31501", ("window-compiled-out",)),
    Defect(38, "Decode's window is one key short",
           "sgl-project/sglang#32087", ("window-one-short",)),
    Defect(39, "Every decoded token is told position 0",
           "Blaizzy/mlx-vlm#1983", ("decode-at-position-zero",)),
    Defect(40, "Left padding shifts positions",
           "TransformerLensOrg/TransformerLens#1609",
           ("padding-shifts-positions", "padding-leaks",)),
    Defect(41, "The padding mask is skipped at a batch of one",
           "huggingface/transformers#46773", ("padding-mask-skipped-alone",)),
    Defect(42, "Keys of old weights stay in the cache after a weight sync",
           "NovaSky-AI/SkyRL#2246, NVIDIA-NeMo/RL#4018", ("stale-after-update",)),
    Defect(43, "Prompt logprobs of cached positions are never written",
           "vllm-project/vllm#42245", ("cached-rows-uninitialised",)),
    Defect(44, "A prefix that is one token off shifts RoPE",
           "waybarrios/vllm-mlx#311", ("prefix-shifts-positions", "position-off-by-one",)),
    Defect(45, "One wrapper ignores the scales of keys and values, the other applies them",
           "flashinfer-ai/flashinfer#4979", ("scale-ignored-in-prefill",)),
    Defect(46, "The FP8 scale is fixed by the first real input",
           "vllm-project/vllm#11906", ("scale-from-first-input",)),
    Defect(47, "Sliding-window attention skips the write-back: outputs right, cache wrong",
           "sgl-project/sglang-jax#1606", ("writeback-skipped",)),
    Defect(48, "Mamba2's scan against its recurrence",
           "vllm-project/vllm#42259, vllm-project/vllm#55627",
           reason="a state-space layer; the decoder here has attention alone"),
    Defect(49, "A stale convolution checkpoint under a prefill graph",
           "sgl-project/sglang#34184",
           reason="a state-space layer's convolution; the decoder here has attention alone"),
    Defect(50, "Verification computes k + 1 rows per request, decode one",
           "vllm-project/vllm#54506", ("linear-by-rows-per-request",)),
    Defect(51, "Dequantisation in the kernel rounds code times scale to bfloat16",
           "vllm-project/vllm#51685", ("dequant-rounds",)),
)
# fmt: on
"""All of them, by number."""


def defects_of(control: str) -> tuple[int, ...]:
    """The numbers of the defects that a control expresses."""
    return tuple(each.number for each in DEFECTS if control in each.controls)
