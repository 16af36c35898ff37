"""Prefill and decode attention that reduce in one order.

Keys are cut at absolute multiples of SPLIT and each split is walked whole, in tiles of TILE keys.
Splits are merged in ascending order. Prefill walks and merges at once; decode computes splits in
parallel, and a second kernel merges them. All three share the functions below, so there is one
text to get right. The rows of a tile are the query heads of one key head, token by token: row p is
token p // G, head p % G of the group. Logarithms and exponentials have base 2 inside.

What a model may have beside (a window or another first key, a ring, a cap, sinks, codes for
numbers) stands behind constants, so a call without it compiles to kernels that know nothing of it.
"""

from __future__ import annotations

from kvparity_kernels.attention.seen.kernels import first_of_last, tiles_seen
from kvparity_kernels.attention.tile.kernels import product, soft_cap
from kvparity_kernels.launch import kernel
from kvparity_kernels.store.kernels import fits, inside, load_stored, slots, stride

# isort: split
import triton
import triton.language as tl

LN2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def split_partial(
    q, row_first, row_last, K, V, K_SCALE, V_SCALE, TABLE, start, first, kv_len, scale,
    lowest, highest, ring, cap, s_kt, s_vt, s_kst, s_vst,
    SPLIT: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
    PAGE: tl.constexpr, BOUNDED: tl.constexpr, RING: tl.constexpr, CAPPED: tl.constexpr,
    FORMAT: tl.constexpr, GROUP: tl.constexpr, SKIP: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """(m, l, acc) of the whole split first .. first+SPLIT; row r sees keys up to row_last[r].

    BOUNDED: and from row_first[r], and no row of the program sees a key outside lowest .. highest.
    The trip count is a constant: a split costs the same work and takes the same steps for every
    row and every length, with masked tiles where there are no keys. SKIP leaves out tiles at both
    ends of which no row of the program sees a key. They change nothing but the sign of a zero,
    which ``finish`` drops; but no manual says that a matrix instruction with zeros leaves its
    accumulator as it was, so it is only set where a device was seen to agree.
    """
    cols = tl.arange(0, BD)[None, :]
    lane = tl.arange(0, TILE)
    m = tl.full((BM,), -float("inf"), tl.float32)
    l = tl.zeros((BM,), tl.float32)  # noqa: E741 - the name of the formulas
    acc = tl.zeros((BM, BD), tl.float32)
    begin, end = 0, SPLIT // TILE
    if SKIP:
        begin, end = tiles_seen(first, lowest, highest, SPLIT, TILE)
    for i in tl.range(begin, end):
        key = first + i * TILE + lane
        here = key < kv_len
        if BOUNDED:
            here = here & (key >= lowest) & (key <= highest)
        slot = slots(key, here, TABLE, start, ring, PAGE, RING)[:, None]
        held = inside(here, cols, D, BD)
        k = load_stored(K, K_SCALE, slot, s_kt, s_kst, cols, held, FORMAT, GROUP).to(q.dtype)
        v = load_stored(V, V_SCALE, slot, s_vt, s_vst, cols, held, FORMAT, GROUP).to(q.dtype)
        s = product(q, tl.trans(k), tl.zeros((BM, TILE), tl.float32), PIECE) * scale
        if CAPPED:
            s = soft_cap(s, cap)
        # Two conditions, though one could hold both: then the compiler writes this select, and all
        # that follows, alike in prefill and decode.
        visible = (key[None, :] <= row_last[:, None]) & here[None, :]
        if BOUNDED:
            visible = visible & (key[None, :] >= row_first[:, None])
        s = tl.where(visible, s, -float("inf"))
        top = tl.maximum(m, tl.max(s, 1))
        shift = tl.where(top == -float("inf"), 0.0, top)
        p = tl.exp2(s - shift[:, None])
        keep = tl.exp2(m - shift)
        l = tl.fma(l, keep, tl.sum(p, 1))  # noqa: E741
        acc = product(p.to(q.dtype), v, acc * keep[:, None], PIECE)
        m = top
    return m, l, acc


@triton.jit
def merge(M, L, A, m, l, a):  # noqa: E741
    """The running (M, L, A) with one more split.

    The fma is spelled out, so that no compiler chooses which product to contract. A split that a
    row does not see is dropped by select: as arithmetic, NaN in it would reach the row.
    """
    top = tl.maximum(M, m)
    shift = tl.where(top == -float("inf"), 0.0, top)
    old = tl.exp2(M - shift)
    new = tl.exp2(m - shift)
    live = m != -float("inf")
    L_top = tl.fma(L, old, l * new)
    A_top = tl.fma(A, tl.broadcast_to(old[:, None], A.shape), a * new[:, None])
    return (
        tl.where(live, top, M),
        tl.where(live, L_top, L),
        tl.where(live[:, None], A_top, A),
    )


@triton.jit
def add_sink(M, L, A, SINKS, h, ok):
    """The running (M, L, A) with a logit per head whose value is 0: merged after all splits."""
    if SINKS is not None:
        sink = tl.load(SINKS + h, mask=ok, other=-float("inf")) * LOG2_E
        M, L, A = merge(M, L, A, sink, tl.full(L.shape, 1.0, tl.float32), tl.zeros_like(A))
    return M, L, A


@triton.jit
def finish(M, L, A):
    """The result and its natural log-sum-exp; 0 and -inf for a row that sees no key.

    A zero is +0: hidden keys of weight 0 and values below 0 may have turned the sum's into -0.
    """
    empty = L == 0.0
    safe = tl.where(empty, 1.0, L)
    out = tl.div_rn(A, tl.broadcast_to(safe[:, None], A.shape)) + 0.0
    return out, tl.where(empty, -float("inf"), (M + tl.log2(safe)) * LN2)


@kernel(
    unaligned=("Q_STARTS", "Q_LENS", "KV_LENS", "STARTS", "TABLE", "FIRST", "SINKS", "K_SCALE",
               "V_SCALE")
)  # fmt: skip
def prefill(
    Q, K, V, OUT, LSE, Q_STARTS, Q_LENS, KV_LENS, STARTS, TABLE, FIRST, SINKS, K_SCALE, V_SCALE,
    tiles, batch, heads, capacity, scale, window, ring, cap, s_qt, s_qh, s_kt, s_kh, s_vt, s_vh,
    s_kst, s_ksh, s_vst, s_vsh, s_table,
    G: tl.constexpr, SPLIT: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, PAGE: tl.constexpr, ALIGN: tl.constexpr, BOUNDED: tl.constexpr,
    RING: tl.constexpr, CAPPED: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    SKIP: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """One program: BM rows of one key head of one sequence. Grid (tiles * B * key heads)."""
    # The last tiles, which see the most keys, start first.
    kv_heads = heads // G
    kv_head = tl.program_id(0) % kv_heads
    b = tl.program_id(0) // kv_heads % batch
    tile = tiles - 1 - tl.program_id(0) // kv_heads // batch
    q_start = tl.load(Q_STARTS + b).to(tl.int64)
    q_len = tl.load(Q_LENS + b)
    kv_len = tl.load(KV_LENS + b)
    start = tl.full((), 0, tl.int64)
    if PAGE == 0:
        start = tl.load(STARTS + b)
    if (tile * BM < q_len * G) & fits(start, kv_len, capacity, ring, RING):
        p = tile * BM + tl.arange(0, BM)
        t = p // G
        h = (kv_head * G + p % G).to(tl.int64)
        ok = t < q_len
        row_last = kv_len - q_len + t
        cols = tl.arange(0, BD)[None, :]
        held = inside(ok, cols, D, BD)
        row = q_start + t
        place = row[:, None] * stride(s_qt, ALIGN) + h[:, None] * stride(s_qh, ALIGN) + cols
        q = tl.load(Q + place, mask=held, other=0.0)
        K_head = K + kv_head * stride(s_kh, ALIGN)
        V_head = V + kv_head * stride(s_vh, ALIGN)
        K_scales, V_scales = K_SCALE, V_SCALE
        if FORMAT != "float":
            K_scales, V_scales = (
                K_SCALE + kv_head * s_ksh.to(tl.int64),
                V_SCALE + kv_head * s_vsh.to(tl.int64),
            )
        pages = TABLE + b.to(tl.int64) * s_table
        # Past the keys that the tile's last row sees there is nothing but dead splits.
        last = tl.minimum((tile * BM + BM - 1) // G, q_len - 1)
        seen = tl.maximum(kv_len - q_len + last + 1, 0)
        row_first = row_last
        lowest = 0
        if BOUNDED:
            row_first = row_last - (window - 1)
            lowest = tl.maximum(kv_len - q_len + tile * BM // G - (window - 1), 0)
            if FIRST is not None:
                given = tl.load(FIRST + row, mask=ok, other=0)
                row_first = tl.maximum(row_first, given)
                lowest = tl.maximum(lowest, tl.min(tl.where(ok, given, 0x7FFFFFFF), 0))
        M, L = tl.full((BM,), -float("inf"), tl.float32), tl.zeros((BM,), tl.float32)
        A = tl.zeros((BM, BD), tl.float32)
        for i in tl.range(lowest // SPLIT, tl.cdiv(seen, SPLIT)):
            m, l, a = split_partial(  # noqa: E741
                q, row_first, row_last, K_head, V_head, K_scales, V_scales, pages, start,
                i * SPLIT, kv_len, scale, lowest, seen - 1, ring, cap,
                stride(s_kt, ALIGN), stride(s_vt, ALIGN), s_kst, s_vst,
                SPLIT, TILE, D, BD, BM, PAGE, BOUNDED, RING, CAPPED, FORMAT, GROUP, SKIP, PIECE,
            )  # fmt: skip
            M, L, A = merge(M, L, A, m, l, a)
        M, L, A = add_sink(M, L, A, SINKS, h, ok)
        out, lse = finish(M, L, A)
        at = row * heads + h
        tl.store(OUT + (at[:, None] * D + cols), out.to(OUT.dtype.element_ty), mask=held)
        tl.store(LSE + at, lse, mask=ok)


@kernel(unaligned=("KV_LENS", "STARTS", "TABLE", "FIRST", "K_SCALE", "V_SCALE"))
def decode_split(
    Q, K, V, PART_M, PART_L, PART_A, KV_LENS, STARTS, TABLE, FIRST, K_SCALE, V_SCALE,
    splits, capacity, scale, window, ring, cap, s_qt, s_qh, s_kt, s_kh, s_vt, s_vh, s_kst, s_ksh,
    s_vst, s_vsh, s_table, kv_heads,
    G: tl.constexpr, SPLIT: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, PAGE: tl.constexpr, ALIGN: tl.constexpr, BOUNDED: tl.constexpr,
    RING: tl.constexpr, CAPPED: tl.constexpr, FORMAT: tl.constexpr, GROUP: tl.constexpr,
    SKIP: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """One program: one split for BM heads of a group. Grid (splits * B, key heads, G / BM).

    The splits are those from the first that the row sees.
    """
    b = tl.program_id(0) // splits
    part = tl.program_id(0) % splits
    kv_head = tl.program_id(1)
    kv_len = tl.load(KV_LENS + b)
    start = tl.full((), 0, tl.int64)
    if PAGE == 0:
        start = tl.load(STARTS + b)
    lowest = 0
    if BOUNDED:
        lowest = first_of_last(kv_len, FIRST, window, b)
    i = lowest // SPLIT + part
    if (i * SPLIT < kv_len) & fits(start, kv_len, capacity, ring, RING):
        r = tl.program_id(2) * BM + tl.arange(0, BM)
        h = (kv_head * G + r).to(tl.int64)
        ok = r < G
        row_last = tl.zeros((BM,), tl.int32) + (kv_len - 1)
        row_first = tl.zeros((BM,), tl.int32) + lowest
        cols = tl.arange(0, BD)[None, :]
        held = inside(ok, cols, D, BD)
        place = b * stride(s_qt, ALIGN) + h[:, None] * stride(s_qh, ALIGN) + cols
        q = tl.load(Q + place, mask=held, other=0.0)
        K_head = K + kv_head * stride(s_kh, ALIGN)
        V_head = V + kv_head * stride(s_vh, ALIGN)
        K_scales, V_scales = K_SCALE, V_SCALE
        if FORMAT != "float":
            K_scales, V_scales = (
                K_SCALE + kv_head * s_ksh.to(tl.int64),
                V_SCALE + kv_head * s_vsh.to(tl.int64),
            )
        pages = TABLE + b.to(tl.int64) * s_table
        m, l, a = split_partial(  # noqa: E741
            q, row_first, row_last, K_head, V_head, K_scales, V_scales, pages, start,
            i * SPLIT, kv_len, scale, lowest, kv_len - 1, ring, cap,
            stride(s_kt, ALIGN), stride(s_vt, ALIGN), s_kst, s_vst,
            SPLIT, TILE, D, BD, BM, PAGE, BOUNDED, RING, CAPPED, FORMAT, GROUP, SKIP, PIECE,
        )  # fmt: skip
        at = ((b.to(tl.int64) * kv_heads + kv_head) * splits + part) * G + r
        tl.store(PART_M + at, m, mask=ok)
        tl.store(PART_L + at, l, mask=ok)
        tl.store(PART_A + (at[:, None] * D + cols), a, mask=held)


@kernel(unaligned=("KV_LENS", "STARTS", "FIRST", "SINKS"))
def decode_combine(
    PART_M, PART_L, PART_A, OUT, LSE, KV_LENS, STARTS, FIRST, SINKS,
    splits, capacity, window, ring, kv_heads,
    G: tl.constexpr, GB: tl.constexpr, CB: tl.constexpr, SPLIT: tl.constexpr, D: tl.constexpr,
    PAGE: tl.constexpr, BOUNDED: tl.constexpr, RING: tl.constexpr, FLIGHT: tl.constexpr,
):  # fmt: skip
    """One program: CB columns of GB heads of a group. Grid (B, key heads, G / GB * D / CB).

    All is elementwise along heads and columns, so how these are cut is free. FLIGHT splits are
    loaded before the first is merged, in one chain; ``merge`` drops those past the last.
    """
    b = tl.program_id(0)
    kv_head = tl.program_id(1)
    chunks: tl.constexpr = (D + CB - 1) // CB
    chunk = tl.program_id(2) % chunks
    kv_len = tl.load(KV_LENS + b)
    start = tl.full((), 0, tl.int64)
    if PAGE == 0:
        start = tl.load(STARTS + b)
    base = 0
    if BOUNDED:
        base = first_of_last(kv_len, FIRST, window, b) // SPLIT
    # More keys than splits were launched for, or than the cache holds: the result stays NaN.
    whole = kv_len <= (base + splits.to(tl.int64)) * SPLIT
    if whole & fits(start, kv_len, capacity, ring, RING):
        r = tl.program_id(2) // chunks * GB + tl.arange(0, GB)
        ok = r < G
        cols = (chunk * CB + tl.arange(0, CB))[None, :]
        M, L = tl.full((GB,), -float("inf"), tl.float32), tl.zeros((GB,), tl.float32)
        A = tl.zeros((GB, CB), tl.float32)
        group, count = b.to(tl.int64) * kv_heads + kv_head, tl.cdiv(kv_len, SPLIT) - base
        for i in tl.range(0, count, FLIGHT):
            for j in tl.static_range(FLIGHT):
                here = r < tl.where(i + j < count, G, 0)
                at = (group * splits + i + j) * G + r
                m = tl.load(PART_M + at, mask=here, other=-float("inf"))
                l = tl.load(PART_L + at, mask=here, other=0.0)  # noqa: E741
                held = inside(here, cols, D, chunks * CB)
                a = tl.load(PART_A + (at[:, None] * D + cols), mask=held, other=0.0)
                M, L, A = merge(M, L, A, m, l, a)
        M, L, A = add_sink(M, L, A, SINKS, kv_head * G + r, ok)
        out, lse = finish(M, L, A)
        at = group * G + r
        held = inside(ok, cols, D, chunks * CB)
        tl.store(OUT + (at[:, None] * D + cols), out.to(OUT.dtype.element_ty), mask=held)
        tl.store(LSE + at, lse, mask=r < tl.where(chunk == 0, G, 0))
