"""Kernels with a window, a softcap, sinks and codes at once: sound, and with planted faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from audit_cases import SHAPE, Pair, mutate, pair

from kvparity.relations.audit.request import ARCHITECTURES

FULL = replace(SHAPE, window=True, softcap=True, sinks=True, kv_cache="fp8_e4m3(head)")
_IMPORT = "from kvparity_kernels.store.kernels import fits, inside, load_stored, slots, stride"
_CAP = "            s = soft_cap(s, cap)\n"
_MASK = "            visible = visible & (key[None, :] >= row_first[:, None])\n"
_VALUES = "load_stored(V, V_SCALE, slot, s_vt, s_vst, cols, held, FORMAT, GROUP)"

# name: what is replaced in decode's kernels, each once
FAULTS: dict[str, tuple[tuple[str, str], ...]] = {
    "another formula of the softcap": (
        (_CAP, "            s = tl.div_rn(tl.exp2(s) - 1.0, tl.exp2(s) + 1.0) * cap\n"),
    ),
    "a window by arithmetic": (
        (_MASK, "            s += tl.where(key[None, :] >= row_first[:, None], 0.0, -1e30)\n"),
    ),
    "the scale of V behind the sum": (
        (_IMPORT, _IMPORT + "\nfrom kvparity_kernels.store.kernels import float8"),
        (_VALUES, "float8(tl.load(V + (slot * s_vt + cols), mask=held, other=0), FORMAT)"),
        ("    return m, l, acc\n", "    return m, l, acc * tl.load(V_SCALE)\n"),
    ),
}


def sound(arch: str) -> Pair:
    return pair(arch, FULL)


def plant(folder: Path) -> dict[str, Pair]:
    """Each fault in decode alone, on sm_90."""
    prefill, decode = sound("sm_90")
    return {
        name: (
            prefill,
            replace(decode, source=mutate(folder, name, *((*each, 1) for each in changes))),
        )
        for name, changes in FAULTS.items()
    }


SOUND = {arch: sound(arch) for arch in ARCHITECTURES}
