"""Where a kernel finds a key in a cache, and the number it reads there, as ``decode`` gives it.

fp8 is taken apart here instead of by the compiler, because not every GPU that Triton compiles for
has the conversion. Either way it is exact.
"""

from __future__ import annotations

from kvparity_kernels import launch as _launch  # noqa: F401 - settles how kernels are decorated

# isort: split
import triton
import triton.language as tl


@triton.jit
def stride(s, ALIGN: tl.constexpr):
    # Scalars are not specialised, so the compiler gets what the wrapper checked. In 64 bits.
    return tl.multiple_of(s.to(tl.int64), ALIGN)


@triton.jit
def inside(rows, cols, D: tl.constexpr, BD: tl.constexpr):
    # Loads are masked, never multiplied away: what lies in unused slots and pads may be NaN.
    if BD == D:
        return rows[:, None]
    else:
        return rows[:, None] & (cols < D)


@triton.jit
def fits(start, kv_len, capacity, ring, RING: tl.constexpr):
    """Whether all slots of a sequence lie in the cache."""
    if RING:
        kv_len = tl.minimum(kv_len, ring)
    return (start >= 0) & (start + kv_len <= capacity)


@triton.jit
def slots(key, here, TABLE, start, ring, PAGE: tl.constexpr, RING: tl.constexpr):
    """The slots (int64) of keys; of those that are not ``here``, anything."""
    if RING:
        key = key % ring
    if PAGE > 0:
        page = tl.load(TABLE + key // PAGE, mask=here, other=0).to(tl.int64)
        return page * PAGE + key % PAGE
    else:
        return start + key


@triton.jit
def load_stored(
    X, SCALE, slot, s_slot, s_scale, cols, held, FORMAT: tl.constexpr, GROUP: tl.constexpr
):
    """A tile of numbers: rows lie in ``slot[:, None]``, columns are ``cols[None, :]``.

    X and SCALE point to one key head. Nothing is read where ``held`` is false; there it is 0.
    """
    if FORMAT == "float":
        return tl.load(X + (slot * s_slot + cols), mask=held, other=0.0)
    elif FORMAT == "fp8_e4m3" or FORMAT == "fp8_e5m2":
        code = tl.load(X + (slot * s_slot + cols), mask=held, other=0)
        return float8(code, FORMAT) * tl.load(SCALE)
    else:
        if FORMAT == "int4":
            pair = tl.load(X + (slot * s_slot + cols // 2), mask=held, other=0).to(tl.int32)
            code = (((pair >> (cols % 2 * 4)) & 15) ^ 8) - 8
        else:
            code = tl.load(X + (slot * s_slot + cols), mask=held, other=0)
        scale = tl.load(SCALE + (slot * s_scale + cols // GROUP), mask=held, other=0.0)
        return code.to(tl.float32) * scale


@triton.jit
def float8(code, FORMAT: tl.constexpr):
    """Exact float32 of uint8 codes, by way of float16, whose small numbers no GPU flushes."""
    wide = code.to(tl.uint16)
    if FORMAT == "fp8_e5m2":
        return (wide << 8).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        half = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        value = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0  # exponents: 15 - 7
        return tl.where((wide & 0x7F) == 0x7F, float("nan"), value)
