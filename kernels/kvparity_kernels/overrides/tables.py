"""What the mode knows of aten's operations. Names as in aten, without the underscore of in-place.

What is in no table and takes floats is refused: nothing passes by oversight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvparity_kernels.overrides import attention, experts, products, reductions


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OVERRIDES: dict[str, Callable[..., Any]] = {
    "linear": products.linear,
    "mm": products.mm,
    "mm.dtype": products.mm,
    "bmm": products.bmm,
    "bmm.dtype": products.bmm,
    "mv": products.mv,
    "dot": products.dot,
    "vdot": products.dot,
    "addmm": products.addmm,
    "baddbmm": products.baddbmm,
    "addmv": products.addmv,
    "sum": reductions.total,
    "sum.dim_IntList": reductions.total,
    "mean": reductions.mean,
    "mean.dim": reductions.mean,
    "_softmax": reductions.softmax,
    "_log_softmax": reductions.log_softmax,
    "_safe_softmax": reductions.safe_softmax,
    "scaled_dot_product_attention": attention.sdpa,
    "_scaled_dot_product_flash_attention_for_cpu": attention.flash_for_cpu,
    "_scaled_dot_product_flash_attention": attention.flash,
    "_scaled_dot_product_efficient_attention": attention.efficient,
    "_scaled_dot_product_cudnn_attention": attention.cudnn,
    "_grouped_mm": experts.grouped_mm,
    "index_add": experts.index_add,
    "rms_norm": reductions.rms_norm,
    "_fused_rms_norm": reductions.fused_rms_norm,
}
"""By name and overload: computed in the fixed order."""

EXACT = _words(
    "abs add bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min clone"
    " copy copysign div eq fill floor fmax fmin ge gt hardtanh heaviside isfinite isinf isnan"
    " isneginf isposinf le logical_and logical_not logical_or logical_xor lt masked_fill maximum"
    " minimum mul nan_to_num ne neg ones_like positive relu round rsub sgn sign signbit sub"
    " threshold trunc where zero"
)
"""Elementwise, and one rounding that IEEE 754 settles: all code gives the same bits.

Not ``sqrt``: torch's own, through MKL's vector functions, is off the nearest float32 for many
arguments.
"""

MOVES = _words(
    "_assert_async _assert_tensor_metadata _local_scalar_dense _reshape_alias _reshape_copy"
    " _to_copy _unsafe_view alias arange as_strided_scatter cat constant_pad_nd contiguous copy"
    " detach diag_embed embedding"
    " empty empty_like empty_permuted empty_strided equal eye fill_diagonal flip full full_like"
    " gather index index_copy index_fill index_select lift lift_fresh lift_fresh_copy"
    " masked_scatter masked_select new_empty new_empty_strided new_full new_ones new_zeros nonzero"
    " ones ones_like repeat repeat_interleave resize roll scalar_tensor scatter select_backward"
    " select_scatter set slice_backward slice_scatter split_copy split_with_sizes_copy stack take"
    " tril triu unfold_copy zero zeros zeros_like"
)
"""No arithmetic: values are moved, made or read."""

SELECTS = _words(
    "all allclose amax amin aminmax any argmax argmin argsort bucketize count_nonzero isclose isin"
    " kthvalue max median min mode msort nanmedian searchsorted sort topk unique_consecutive"
    " _unique2 cummax cummin histc"
)
"""The result is one of the inputs, a comparison or a count: no sum of floats (``histc`` counts up
to 2^24 exactly). Torch settles ties,
+0 against -0 among them."""

ADDS_IF = {"index_put": "accumulate", "_index_put_impl": "accumulate", "put": "accumulate"}
"""Moves, unless this argument is true."""

REDUCES = _words(
    "_adaptive_avg_pool2d _cdist_forward _embedding_bag _log_softmax_backward_data"
    " _softmax_backward_data _thnn_fused_gru_cell addbmm addr avg_pool1d avg_pool2d avg_pool3d"
    " convolution cumprod cumsum embedding_bag embedding_dense_backward grid_sampler_2d"
    " index_reduce linalg_vector_norm logcumsumexp logsumexp native_batch_norm"
    " native_group_norm native_layer_norm nansum norm prod scatter_add scatter_reduce std"
    " std_mean trace upsample_bilinear2d var var_mean _trilinear _weight_norm_interface"
    " _scaled_mm _scaled_grouped_mm _int_mm _weight_int4pack_mm _weight_int8pack_mm"
    " mkldnn_linear mkldnn_convolution renorm dist bincount col2im segment_reduce"
    " _adaptive_avg_pool3d _ctc_loss _embedding_bag_forward_only _foreach_norm _pdist_forward"
    " grid_sampler_3d huber_loss mse_loss multi_margin_loss multilabel_margin_loss_forward"
    " nll_loss2d_forward nll_loss_forward smooth_l1_loss soft_margin_loss"
    " upsample_bicubic2d upsample_linear1d upsample_trilinear3d"
)
"""Known to reduce, and not swapped: the error says so instead of "not known"."""

ATTENTION = ("scaled_dot_product", "flash_attention", "efficient_attention", "multi_head_attention")
"""Parts of the names of fused attention, which is an error where it is not answered above."""
