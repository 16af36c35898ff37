"""Check, allocate, launch."""

from __future__ import annotations

from torch import Tensor

from kvparity_kernels import arguments as arg

BLOCK = 1024
NUM_WARPS = 4


def embed(ids: Tensor, w: Tensor, *, twin: bool = False) -> Tensor:
    """Row ``ids[t]`` of ``w[V, H]`` for every t: ``[T, H]`` like ``w``, bits copied.

    ``ids`` int64 ``[T]``. An id outside the vocabulary is a ``ValueError`` on the CPU and a row of
    NaN on a GPU. ``twin=True``, for CPU tensors only, gathers with torch.
    """
    arg.require_shape("embed", "ids", ids, None)
    arg.require_shape("embed", "w", w, None, None)
    dtype = arg.require_floats("embed", {"w": w})
    arg.require_device("embed", {"w": w, "ids": ids})
    arg.require_rows("embed", "w", w)
    vocab, width = w.shape
    arg.require(vocab > 0 and width > 0, f"embed: w has shape {list(w.shape)}, which is empty")
    tokens = ids.shape[0]
    arg.require_indices("embed", "ids", ids, tokens, vocab)
    if twin:
        arg.require_twin("embed", w)
        return w.detach().index_select(0, ids)

    from kvparity_kernels.embedding import kernels
    from kvparity_kernels.launch import launch

    y = arg.poisoned((tokens, width), dtype, w.device)
    block = min(arg.next_power_of_2(width), BLOCK)
    launch(
        kernels.embed,
        (tokens * -(-width // block),),
        IDS=ids.contiguous(),
        W=w.detach(),
        Y=y,
        w_stride=w.stride(0),
        V=vocab,
        H=width,
        BLOCK=block,
        num_warps=NUM_WARPS,
    )
    return y
