"""Two functions of the caller's, checked without a file: a pair of attention kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import cast

import torch

from kvparity.api.reports import Report
from kvparity.api.written import named, verified, written
from kvparity.core.isolation.inside import inside
from kvparity.run.options import BUDGET_S, seconds
from kvparity.run.verify import TIMEOUT_S
from kvparity_contracts.json_types import JsonObject, JsonValue

Function = Callable[..., object]
LENGTHS = (1, 17, 62, 63, 64, 65, 130)
"""Prompts: one token, and both sides of an edge of 64 keys."""
CHUNK = 24
LIMITS = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}
"""How far out may be from float64, by dtype: what the library's contracts of pairs allow."""
_numbers = count(1)


def check_pair(
    prefill: Function | str,
    decode: Function | str,
    *,
    heads: Sequence[int],
    dtype: str | torch.dtype | Sequence[str | torch.dtype] = "float32",
    lengths: Sequence[int] = LENGTHS,
    generate: int = 3,
    paths: Sequence[str] | None = None,
    max_abs: float | Mapping[str, float] | None = LIMITS,
    controls: str | Sequence[str] = "all",
    seed: int = 0,
    signature: str | None = None,
    subject: Mapping[str, JsonValue] | None = None,
    name: str = "pair",
    device: str | None = None,
    run_dir: str | Path | None = None,
    timeout: float = TIMEOUT_S,
    locate: float = BUDGET_S,
) -> Report:
    """Does decode give each row the bits of prefill, and are both near float64?

    Functions run in this very process, so they may come from a notebook's cell or a test. Those of
    a module can be run again by ``kvparity replay`` and ``locate``, others cannot. Names
    (``module:function``, ``file.py:function``) run in processes of their own, which also lets
    fresh processes recompute some rows. Both take keywords as docs/contracts.md describes, or as
    the project of ``signature`` documents its own.

    Args:
        prefill: ``(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale)`` -> out or (out, lse).
        decode: ``(q, k_cache, v_cache, *, kv_lens, scale)`` -> out or (out, lse).
        heads: query heads, key and value heads, width of a head, and of a value if it is another.
        dtype: of q, k and v; one or several, by torch's names.
        lengths: tokens of the prompts.
        generate: tokens that each sequence decodes.
        paths: compared with prefill, bit for bit; left out, ``decode``, ``batched``, ``permuted``
            and ``chunked(24)``, or smaller chunks where no sequence is that long.
        max_abs: how far elements may be from float64, for all dtypes or by dtype; None: not asked.
        controls: planted defects by name, or ``all`` that fit.
        seed: of all random data.
        signature: ``flash-attn``, ``flashinfer``, ``vllm``, ``sglang`` or ``sdpa``.
        subject: more keys of a contract's ``subject``, such as ``{"window": 128}``.
        name: of the report and its folder.
        device: as :func:`kvparity.verify`.
        run_dir: the same.
        timeout: the same.
        locate: seconds at most that are spent on where a case that differs parts, and why, in a
            process of its own; 0: none.

    Raises:
        ValueError: an argument means nothing; the message says what was expected.
        UnsupportedError, RunFolderError, SubjectError: see there.
    """
    if locate:
        seconds("locate", locate)
    several = dtype if isinstance(dtype, list | tuple) else [dtype]
    dtypes = [str(each).removeprefix("torch.") for each in several]
    with _named(prefill, decode) as (names, live, again):
        document = _contract(
            names,
            heads,
            dtypes,
            lengths,
            generate,
            paths,
            max_abs,
            controls,
            _declared(subject, signature),
        )
        document.update(name=named(name), seed=seed)
        with written(
            lambda folder: document, caller="check_pair", name=name, run_dir=run_dir
        ) as run:
            found = verified(
                run,
                device=device,
                timeout=timeout,
                live=live,
                locate_s=locate if again and not inside() else 0,
            )
        return replace(found, again=again)


def _contract(
    names: tuple[str, str],
    heads: Sequence[int],
    dtypes: Sequence[str],
    lengths: Sequence[int],
    generate: int,
    paths: Sequence[str] | None,
    max_abs: float | Mapping[str, float] | None,
    controls: str | Sequence[str],
    subject: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    named = "query", "kv", "dim", "v_dim"
    if not isinstance(heads, list | tuple) or len(heads) not in (3, 4):
        expected = "expected three numbers: query heads, key and value heads, width of a head"
        raise ValueError(f"heads: found {heads!r}, {expected}")
    if twice := sorted({"kind", "prefill", "decode", "heads"} & set(subject)):
        raise ValueError(f"subject: found {twice[0]!r}, which is an argument of its own")
    if paths is None:
        paths = _default_paths(lengths, generate)
    checks: list[JsonValue] = [
        {"name": "decode reduces like prefill", "relation": "invariance", "paths": _listed(paths)}
    ]
    if max_abs is not None:
        limits = max_abs if isinstance(max_abs, Mapping) else dict.fromkeys(dtypes, max_abs)
        lacking = [each for each in dtypes if each not in limits]
        if lacking:
            raise ValueError(f"max_abs: expected a limit for {lacking[0]}, or None for no check")
        by_dtype: JsonObject = {each: {"max_abs": limits[each]} for each in dtypes}
        checks.append({"name": "close to float64", "relation": "accuracy", "limits": by_dtype})
    return {
        "version": 1,
        "subject": {
            "kind": "attention",
            "prefill": names[0],
            "decode": names[1],
            "heads": dict(zip(named, heads, strict=False)),
            **subject,
        },
        "numerics": {"execution": list(dtypes)},
        "workloads": [{"name": "lengths", "prompt_tokens": _listed(lengths), "generate": generate}],
        "checks": checks,
        "controls": _listed(controls),
    }


def _declared(subject: Mapping[str, JsonValue] | None, signature: str | None) -> JsonObject:
    """More keys of the subject.

    Raises:
        ValueError: they are no mapping, or name another signature beside ``signature``.
    """
    if subject is not None and not isinstance(subject, Mapping):
        raise ValueError(f"subject: found {subject!r}, expected keys of a contract's subject")
    found = dict(subject or {})
    if signature is None:
        return found
    if "signature" in found:
        raise ValueError("subject: found 'signature', which is given as an argument of its own")
    return {"signature": signature, **found}


def _default_paths(lengths: Sequence[int], generate: int) -> Sequence[str]:
    """Those that can differ: a chunk is shorter than the longest sequence."""
    paths = ["decode", "batched", "permuted"]
    with suppress(TypeError, ValueError):  # for the contract to refuse
        longest = max(lengths) + generate
        paths += [f"chunked({min(CHUNK, longest - 1)})"] if longest > 1 else []
    return paths


def _listed(value: object) -> JsonValue:
    """A sequence as JSON has it; anything else as it is, for the contract to refuse."""
    return cast(JsonValue, list(value) if isinstance(value, tuple | range) else value)


@contextmanager
def _named(
    prefill: Function | str, decode: Function | str
) -> Iterator[tuple[tuple[str, str], Mapping[str, Function], bool]]:
    """Names by which a contract can say which functions are meant, as long as this lasts; what
    they mean in this process; and whether another process finds them by these names.
    """
    if isinstance(prefill, str) and isinstance(decode, str):
        yield (_absolute(prefill), _absolute(decode)), {}, True
        return
    if (
        isinstance(prefill, str)
        or isinstance(decode, str)
        or not callable(prefill)
        or not callable(decode)
    ):
        raise ValueError("prefill and decode: expected two functions, or two names")
    one, other = _place(prefill), _place(decode)
    if one is not None and other is not None:
        yield (one, other), {one: prefill, other: decode}, True
        return
    module = ModuleType(f"kvparity_given_{next(_numbers)}")
    vars(module).update(prefill=prefill, decode=decode)
    sys.modules[module.__name__] = module
    names = f"{module.__name__}:prefill", f"{module.__name__}:decode"
    try:
        yield names, {names[0]: prefill, names[1]: decode}, False
    finally:
        del sys.modules[module.__name__]


def _place(function: Function) -> str | None:
    """Where another process finds a function: the file or the package of its module. None: in no
    other, such as one of a notebook, a script that would run again, or of another function.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__name__", "")
    file = getattr(module, "__file__", None)
    if module is None or file is None or vars(module).get(name) is not function:
        return None
    if module.__name__ == "__main__" or Path(file).suffix != ".py":
        return None
    return f"{module.__name__}:{name}" if module.__package__ else f"{Path(file).resolve()}:{name}"


def _absolute(name: str) -> str:
    """A file begins in the current folder, whatever the folder of the contract is."""
    where, _, function = name.rpartition(":")
    return f"{Path(where).resolve()}:{function}" if where.endswith(".py") else name
