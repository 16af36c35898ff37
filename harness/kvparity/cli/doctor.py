"""``kvparity doctor``: what is here, what can run, what will be used."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

from kvparity.cli import say
from kvparity.cli.device import add_argument, settle
from kvparity.exit_codes import ExitCode


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="what is here, what can run, what will be used",
        description="Look at this machine and say what kvparity can run on it.",
    )
    add_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit 0 if ``verify`` can run here, 3 if not."""
    found = examine(args.device)
    if args.json:
        say.document(found)
    else:
        print(_text(found))
    return ExitCode.HOLDS if found["ready"] else ExitCode.ERROR


def examine(asked: str | None) -> dict[str, Any]:
    """Everything the report says, as JSON values. Runs one small kernel to see that it runs."""
    try:
        import torch

        device = settle(asked)
    except (ImportError, ValueError) as error:
        return {"ready": False, "problem": str(error)}
    from kvparity.environment import environment
    from kvparity.environment import settle as settle_process
    from kvparity.tiles.force import describe
    from kvparity_kernels.rules import RulesError

    settle_process()

    found: dict[str, Any] = environment(torch.device(device))
    try:
        found["tiles"] = describe(torch.device(device))
    except RulesError as error:
        return found | {"ready": False, "problem": str(error)}
    found["problem"] = _trial(device)
    found["ready"] = found["problem"] is None
    found["subjects"] = {
        "attention": "ready",
        "decoder": "ready",
        "transformers": "ready" if find_spec("transformers") else "missing: install transformers",
        "flashinfer": "installed" if find_spec("flashinfer") else "not installed (optional)",
    }
    return found


def _trial(device: str) -> str | None:
    """Why the attention kernels do not run on ``device``, or None if prefill equals decode."""
    import torch

    from kvparity.bits import differing

    try:
        from kvparity_kernels.attention import decode, prefill

        q = torch.linspace(-1, 1, 3 * 16, device=device).reshape(3, 1, 16)
        ends = torch.tensor([0, 3], dtype=torch.int32, device=device)
        whole, _ = prefill(q, q, q, cu_seqlens_q=ends, cu_seqlens_k=ends, scale=0.25)
        last, _ = decode(q[2:], q[None], q[None], kv_lens=ends[1:], scale=0.25)
    except Exception as error:
        return f"the attention kernels do not run on {device}: {type(error).__name__}: {error}"
    if bool(differing(whole[2:], last).any()):
        return f"a trial on {device} gave other bits for decode than for prefill"
    return None


def _text(found: dict[str, Any]) -> str:
    if "tiles" not in found:
        return f"NOT READY: {found['problem']}"
    lines = ["ready" if found["ready"] else f"NOT READY: {found['problem']}"]
    lines.append(f"  device       {found['device']}: {found['device_name']}")
    how = "interpreted (algorithm only)" if found["triton_mode"] == "interpreter" else "compiled"
    lines.append(f"  kernels      {how}")
    tiles = found["tiles"]
    lines.append(f"  architecture {tiles['arch'] or 'none'}, Triton {tiles['triton']}")
    lines.append(f"  tiles        {tiles['words']}")
    lines.append(f"  python       {found['python']} on {found['platform']}")
    for name, version in found["versions"].items():
        lines.append(f"  {name:<20} {version or 'not installed'}")
    for name, state in found["subjects"].items():
        lines.append(f"  subject {name:<12} {state}")
    tf32 = found["tf32"]
    lines.append(f"  TF32         matmul {tf32['matmul']}, cudnn {tf32['cudnn']}")
    for name, value in found["variables"].items():
        lines.append(f"  {name}={value}")
    return "\n".join(lines)
