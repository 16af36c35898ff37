"""Do transformers' caches give the logprobs of a forward without a cache? By family, cache, path.

    python ci/studies/survey_transformers_caches.py
        write docs/results/transformers-caches.json, or what is missing of it; delete the file to
        begin anew
    python ci/studies/survey_transformers_caches.py --family mistral --cache dynamic \
        --attention eager --execution float32 --path decode
        print rows, write nothing

Tiny random models of each family (``tests/harness/transformers_families.py``), prompts around the
edges of their window of 8 tokens. Every path is compared with ``uncached``: one forward over the
whole sequence, ``use_cache=False``. Once in torch's own arithmetic, where rounding follows the
number of rows, and once with torch's reductions in fixed order, where no rounding is left: what
still differs there is another computation, not another rounding.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TypedDict, cast

from study import ROOT, put

sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "tests/harness")]
os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402 - the mode comes first
import transformers  # noqa: E402
from transformers_families import FAMILIES, NO_SDPA, PARTING, WINDOW  # noqa: E402

from kvparity.core.bits import differing  # noqa: E402
from kvparity.core.rng import stream  # noqa: E402
from kvparity.plan.workload import Prompts  # noqa: E402
from kvparity.plan.workload_plans import WorkloadPlans  # noqa: E402
from kvparity.record.execute import Record  # noqa: E402
from kvparity.record.path_run import PathRun, Setting  # noqa: E402
from kvparity.subjects.base import SubjectError, UnsupportedError  # noqa: E402
from kvparity.subjects.hf.subject import TransformersSubject, build  # noqa: E402
from kvparity_contracts import PathName  # noqa: E402
from kvparity_contracts.subjects import Transformers  # noqa: E402

OUT = ROOT / "docs" / "results" / "transformers-caches.json"
LENGTHS = (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1)
GENERATE = 6
PATHS = ("prefill", "decode", "generate", "chunked(3)", "chunked(7)", "streamed(3)", "reset",
         "prefix(6)", "padded-left", "padded-right")  # fmt: skip
SLOW_PATHS = ("decode", "chunked(7)")  # in Triton's interpreter
SHORT_PATHS = ("decode", "generate", "chunked(7)", "padded-left")  # in bfloat16
ARITHMETIC = {"eager": (False, True), "sdpa": (False,), "kvparity": (True,)}
EVERY = {**FAMILIES, **PARTING}
IN_FIXED_ORDER = ("llama", "mistral", "gemma2", "gemma4", "gpt_oss")  # the interpreter is slow


class Difference(TypedDict, total=False):
    """How far a path is from the forward without a cache; or why it could not run."""

    path: str
    tokens: int
    differing_tokens: int
    differing_rows: int
    max_abs_dlogp: float
    error: str


class SurveyRow(Difference, total=False):
    """A path of a model."""

    family: str
    cache: str
    attention: str
    execution: str
    fixed_order: bool


def prompts() -> Prompts:
    """Ids that are a function of (prompt, position); the continuation is given, too."""
    ids = tuple(f"edges/{i}" for i in range(len(LENGTHS)))
    return Prompts(
        "edges", ids, tuple(tuple(tokens(i, n)) for i, n in enumerate(LENGTHS)), GENERATE
    )


def tokens(sequence: int, length: int) -> list[int]:
    """Token ids of one sequence."""
    return [3 + stream(0, f"edges/{sequence}", str(i)) % 125 for i in range(length)]


def subject(
    family: str, cache: str, attention: str, execution: str, fixed: bool
) -> TransformersSubject:
    """The model of a row."""
    contract = Transformers(
        kind="transformers",
        config=EVERY[family],
        attention=attention,
        cache=cache,
        invariant=fixed,
        order={"split": 16, "tile": 16, "block_m": 16} if attention == "kvparity" else None,
    )
    return build(
        contract,
        execution=execution,
        kv_cache=execution,
        device=torch.device("cpu"),
        seed=0,
        base=Path(),
    )


def row(model: TransformersSubject, path: str, reference: Record) -> Difference:
    """One path beside the forward without a cache."""
    found = record(model, path)
    assert found.index == reference.index, "both sides compare the same positions"
    apart = (found.values.double() - reference.values.double()).abs()
    return {
        "path": path,
        "tokens": len(found.index),
        "differing_tokens": int(differing(found.values, reference.values).any(-1).sum()),
        "differing_rows": int((found.digests != reference.digests).sum()),
        "max_abs_dlogp": float(apart.max()),
    }


def record(model: TransformersSubject, path: str) -> Record:
    """Run one path over the given tokens."""
    contract = SimpleNamespace(seed=0, numerics=SimpleNamespace(temperatures=(1.0,)))
    setting = cast(Setting, SimpleNamespace(contract=contract))  # what is read of one
    own = [tokens(i, n + GENERATE) for i, n in enumerate(LENGTHS)]
    return PathRun(
        setting, model, WorkloadPlans(prompts(), setting.contract.seed), PathName.parse(path), own
    ).run()


def survey(
    family: str, cache: str, attention: str, execution: str, only: str | None
) -> list[SurveyRow]:
    """All rows of one combination."""
    rows: list[SurveyRow] = []
    for fixed in ARITHMETIC[attention]:
        about: SurveyRow = {
            "family": family,
            "cache": cache,
            "attention": attention,
            "execution": execution,
            "fixed_order": fixed,
        }
        paths = SHORT_PATHS if execution == "bfloat16" else PATHS
        if attention == "kvparity":
            paths = SLOW_PATHS
        try:
            model = subject(family, cache, attention, execution, fixed)
            reference = record(model, "uncached")
        except (SubjectError, UnsupportedError, RuntimeError, ValueError) as error:
            rows.append({**about, "path": "uncached", "error": f"{error}".splitlines()[0]})
            continue
        for path in [only] if only else paths:
            try:
                rows.append({**about, **row(model, path, reference)})
            except (SubjectError, UnsupportedError, RuntimeError) as error:
                rows.append({**about, "path": path, "error": f"{error}".splitlines()[0]})
    return rows


def table(rows: list[SurveyRow]) -> str:
    """Per family and cache, as markdown: the worst path of each attention, right padding apart."""

    def worst(
        family: str, cache: str, attention: str, execution: str, fixed: bool, pad: bool
    ) -> str:
        found = [
            r
            for r in rows
            if (r["family"], r["cache"], r["attention"]) == (family, cache, attention)
            and (r["execution"], r["fixed_order"]) == (execution, fixed)
            and (r["path"] == "padded-right") == pad
        ]
        done = [r for r in found if "error" not in r]
        if not done:
            return "refused" if found else ""
        differing_tokens = sum(r["differing_tokens"] for r in done)
        if fixed:
            return f"{differing_tokens} of {sum(r['tokens'] for r in done)}"
        top = max(done, key=lambda r: r["max_abs_dlogp"])
        return f"{top['max_abs_dlogp']:.0e}" if top["max_abs_dlogp"] else "0"

    names = ("family", "cache", "eager", "sdpa", "eager, fixed order", "kvparity, fixed order",
             "eager, bfloat16", "right pads: eager", "right pads: fixed order")  # fmt: skip
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for family, cache in dict.fromkeys((r["family"], r["cache"]) for r in rows):
        cells = [
            worst(family, cache, attention, execution, fixed, pad)
            for attention, execution, fixed, pad in (
                ("eager", "float32", False, False),
                ("sdpa", "float32", False, False),
                ("eager", "float32", True, False),
                ("kvparity", "float32", True, False),
                ("eager", "bfloat16", False, False),
                ("eager", "float32", False, True),
                ("eager", "float32", True, True),
            )
        ]
        lines.append("| " + " | ".join([family, cache, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Ask all, or what the options name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--family", choices=EVERY)
    parser.add_argument("--cache", choices=("dynamic", "static"))
    parser.add_argument("--attention", choices=tuple(ARITHMETIC))
    parser.add_argument("--execution", choices=("float32", "bfloat16"))
    parser.add_argument("--path")
    given = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    choices = (
        [given.execution] if given.execution else ["float32", "bfloat16"],
        [given.attention] if given.attention else list(ARITHMETIC),
        [given.family] if given.family else list(EVERY),
        [given.cache] if given.cache else ["dynamic", "static"],
    )
    whole = not any(vars(given).values())
    rows = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if whole and OUT.exists() else []
    done = {(r["execution"], r["attention"], r["family"], r["cache"]) for r in rows}
    for execution, attention, family, cache in itertools.product(*choices):
        if attention == "sdpa" and family in NO_SDPA:
            continue
        slow = execution != "float32" or family not in IN_FIXED_ORDER
        if whole and attention == "kvparity" and slow:
            continue
        if (execution, attention, family, cache) in done:
            continue
        rows += survey(family, cache, attention, execution, given.path)
        print(f"{time.perf_counter() - begin:6.0f} s {family} {cache} {attention}", file=sys.stderr)
        if whole:
            write(rows)
    if not whole:
        print("\n".join(json.dumps(each) for each in rows))
        return
    put(OUT.with_suffix(".md"), table(rows))


def write(rows: list[SurveyRow]) -> None:
    """The results so far."""
    document = {
        "command": "python ci/studies/survey_transformers_caches.py",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "window": WINDOW,
        "prompts": LENGTHS,
        "generate": GENERATE,
        "rows": rows,
    }
    lines = ",\n  ".join(json.dumps(each) for each in rows)
    text = json.dumps({**document, "rows": []}, indent=1).replace('"rows": []', "@")
    OUT.write_text(text.replace("@", f'"rows": [\n  {lines}\n ]') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
