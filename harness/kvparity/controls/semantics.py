"""Both kernels compute the same wrong thing, as float64 has it: only a limit can tell.

What is planted is exact but for its fault, so that its distance from float64 is that of the fault
alone, whatever the pair under verification does itself. A pair that has the fault already would
not hide it, as it could if its own kernels were called with other arguments.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import Plant
from kvparity.controls.reference import changed_calls
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import SlotsCall
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.pair.exact import Rows, exact, exact_pair
from kvparity.subjects.pair.model import PairModel
from kvparity.subjects.pair.subject import AttentionSubject

TWICE = math.log(2)
"""e^s twice is e^(s + ln 2)."""


def _no_softcap(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores are not capped: sgl-project/sglang#33915."""
    return exact(replace(subject, softcap=0.0), q, k, v)


def _longer_window(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The window counts the keys before a row's own: huggingface/transformers#39408."""
    return exact(replace(subject, window=subject.window + 1), q, k, v)


def _longer_before(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A window is passed on as keys beside a row's own, of which it counts one."""
    return exact(_sided(subject, before=1, ahead=0), q, k, v)


def _longer_ahead(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same on the other side."""
    return exact(_sided(subject, before=0, ahead=1), q, k, v)


def _sided(subject: PairModel, *, before: int, ahead: int) -> PairModel:
    """Rows that see so many keys more on each side."""
    left, right = subject.window_size or (subject.window - 1, subject.window - 1)
    return replace(subject, window=0, window_size=(left + before, right + ahead))


def _two_sinks(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The sink joins the denominator of two splits: ROCm/rocm-libraries#12227."""
    terms = subject.terms()
    assert terms.sinks is not None, "it is planted where a pair has sinks"
    return exact(subject, q, k, v, replace(terms, sinks=terms.sinks + TWICE))


def _other_sign(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Far keys gain what they should lose: meta-pytorch/attention-gym#86."""
    terms = subject.terms()
    slopes, bias = (None if x is None else -x for x in (terms.alibi_slopes, terms.bias))
    return exact(subject, q, k, v, replace(terms, alibi_slopes=slopes, bias=bias))


def _one_farther(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Distances count from the key behind the row's own: vllm-project/vllm#945."""
    terms = subject.terms()
    assert terms.bias is not None, "it is planted where a pair has a bias by distance"
    farther = torch.cat([terms.bias[:, 1:], terms.bias[:, -1:]], 1)
    return exact(subject, q, k, v, replace(terms, bias=farther))


def _first_columns(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores of the columns that values have too, in MLA those without RoPE: triton#621."""
    width = subject.heads.values
    return exact(subject, q[..., :width], k[..., :width], v)


def _hidden(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Encoders are computed as decoders are: sgl-project/sglang#35434."""
    return exact(replace(subject, causal=True), q, k, v)


def _padded_scale(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads are padded to the next power of two, and scores scaled by that: intel/ipex-llm#12619.

    The next one is never the dimension itself, so that the fault is there for every head.
    """
    dim = subject.heads.dim
    padded = 1 << dim.bit_length()
    return exact(replace(subject, scale=subject.scale * math.sqrt(dim / padded)), q, k, v)


def _interleaved(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """KV heads are tiled over the query heads, not repeated for each group: onnx/onnx#7274."""
    of_query = torch.arange(subject.heads.query, device=k.device) % subject.heads.kv
    return exact(subject, q, k[:, of_query], v[:, of_query])


ROWS: dict[str, Rows] = {
    "softcap-ignored": _no_softcap,
    "window-one-long": _longer_window,
    "sink-twice": _two_sinks,
    "bias-with-wrong-sign": _other_sign,
    "bias-one-off": _one_farther,
    "scores-of-first-columns": _first_columns,
    "later-keys-hidden": _hidden,
    "window-before-one-long": _longer_before,
    "window-ahead-one-long": _longer_ahead,
    "scale-of-padded-head": _padded_scale,
    "kv-heads-interleaved": _interleaved,
}
"""What kernels with the fault give, by control."""


def _planted(name: str, rows: Rows) -> Plant:
    def plant(subject: Subject) -> Subject:
        if name in OF_DECODERS and isinstance(subject, DecoderSubject):
            return OF_DECODERS[name](subject)
        if not isinstance(subject, AttentionSubject):
            raise UnsupportedError("this defect needs a pair of kernels")
        return subject.with_pair(exact_pair(subject, rows))

    return plant


def _twice(call: SlotsCall) -> SlotsCall:
    if call.sinks is None:
        raise UnsupportedError("this defect needs attention sinks, and a layer has none")
    return replace(call, sinks=call.sinks + TWICE)


OF_DECODERS: dict[str, Plant] = {"sink-twice": changed_calls(_twice)}
"""Those that a decoder may have, too: planted in the calls of its attention."""
PLANTED: dict[str, Plant] = {name: _planted(name, rows) for name, rows in ROWS.items()}
"""How each is planted, into both sides."""
