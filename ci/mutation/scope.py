"""Which files decide verdicts, and so are mutated; and what of a source only words a message."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HARNESS, KERNELS, CONTRACTS = (
    "harness/kvparity",
    "kernels/kvparity_kernels",
    "contracts/kvparity_contracts",
)
_DECIDING = {
    HARNESS: """
        api/* births/causes births/signs
        core/bits core/drift core/lse core/offline core/plain_tensor
        gaps/adapters gaps/curves gaps/explain gaps/factors gaps/flips gaps/forward
        gaps/merged gaps/model_side gaps/pattern gaps/patterns gaps/position_patterns
        gaps/report gaps/routing gaps/sides gaps/weights
        plan/cases plan/kernel_cases plan/paths plan/planted plan/results plan/schedule
        plan/thinned
        record/* controls/* subjects/__init__ subjects/decoder/subject subjects/hf/* subjects/pair/*
        relations/* relations/accuracy/* relations/audit/* relations/cache/* relations/liveness/*
        relations/order/* relations/parity/* relations/trace/*
        rollouts/* rollouts/layouts/* servers/* subjects/server/*
        report/case_line report/evidence_check report/evidence_paths
        report/lines report/run_dir report/unit_paths report/verdict
        run/control_run run/identity run/options run/replay run/trace_command run/unit
        run/verify run/worker run/recheck/*
        sweeps/history sweeps/judged sweeps/store_rows
    """,
    KERNELS: """
        fixed_arithmetic interpreter interpreter_fastpath launch operators rules
        tile_functions tiles
        store/* overrides/*
    """,
    CONTRACTS: """
        abilities check_base checks chosen consistency faint features few_rows grouping idling
        kernel_checks limits lint_controls linter order parity_check path_checks paths placing
        planning sides stores undeclared
    """,
}
_SHOW = {
    "harness/kvparity/relations/accuracy/text.py": "words an accuracy case",
    "harness/kvparity/relations/audit/report.py": "words an audit",
    "harness/kvparity/relations/audit/words.py": "words an audit",
    "harness/kvparity/relations/explain.py": "words a difference",
    "harness/kvparity/relations/order/picture.py": "draws trees",
    "harness/kvparity/relations/order/text.py": "words a certificate",
    "harness/kvparity/relations/trace/picture.py": "draws a trace",
    "harness/kvparity/relations/trace/table.py": "prints a trace",
}
"""Files of those folders that only show what others decided."""


class GivenError(Exception):
    """What was given cannot be used: one sentence, and exit code 2."""


def files() -> list[str]:
    """The deciding files, from the root of the checkout."""
    found: set[str] = set()
    for folder, names in _DECIDING.items():
        for name in names.split():
            here = sorted((ROOT / folder).glob(f"{name}.py"))
            if not here:
                raise FileNotFoundError(f"ci/mutation/scope.py names {folder}/{name}.py: no file")
            found |= {str(path.relative_to(ROOT)) for path in here}
    return sorted(found - set(_SHOW))


@dataclass(frozen=True)
class Stretch:
    """A part of a source: lines from 1, columns from 0, the end not included."""

    start: tuple[int, int]
    end: tuple[int, int]

    def has(self, start: tuple[int, int], end: tuple[int, int]) -> bool:
        """Whether all of that lies in it."""
        return self.start <= start and end <= self.end


def unchanged(tree: ast.Module) -> list[Stretch]:
    """Types, decorators of classes, and what only words a message: no verdict rests on them."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if (part := getattr(node, name, None)) is not None:
                found.append(part)
        if isinstance(node, ast.JoinedStr):
            found.append(node)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found += node.exc.args
        if isinstance(node, ast.ClassDef):
            found += node.decorator_list
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append(node)
    return [_stretch(node) for node in found]


def _stretch(node: ast.AST) -> Stretch:
    assert isinstance(node, (ast.expr, ast.stmt))
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return Stretch((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
