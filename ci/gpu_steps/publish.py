"""Enter what ci/gpu found on a device into the results: evidence as JSON, and the table's column.

    python ci/gpu_steps/publish.py DIR     the folder that ci/gpu wrote (its --out)

Every step that has an answer becomes a file in docs/results/device/<device>/, with the device,
the versions and the command. Then the result column of the CUDA table in docs/results/README.md is
written anew from all such folders; a row without evidence says "not measured", and nothing else
can make it say more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci"))

from gpu_steps.record import (  # noqa: E402 - the path comes first
    EVIDENCE,
    FINISHED,
    SUMMARY,
    Document,
    StepOutcome,
    Summary,
)

RESULTS = ROOT / "docs/results"
PAGE = "README.md"
HEADING = "## On a CUDA device"
NOTHING = "not measured"
ONLY = re.compile(r"`ci/gpu --only ([a-z0-9 -]+)`")


class PublishError(ValueError):
    """The folder holds no answers of a device."""


def slug(device: str) -> str:
    """``NVIDIA H200`` as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


class Published(StepOutcome):
    """One file below ``device/``; ``path`` is relative to the results."""

    facts: dict[str, str | None]
    told: str
    document: Document | None
    path: str


def publish(folder: Path, results: Path = RESULTS) -> list[Path]:
    """Write the evidence of one run below ``results``; the files.

    Raises ``PublishError`` if ``folder`` is not what ci/gpu writes, or no step has an answer.
    """
    try:
        summary = Summary.model_validate_json((folder / SUMMARY).read_bytes())
        documents = json.loads((folder / EVIDENCE).read_text())
    except (OSError, ValueError) as error:
        raise PublishError(f"{folder} is no output folder of ci/gpu: {error!r}") from error
    device = summary.facts.get("device")
    steps = [step for step in summary.steps if step.state in FINISHED]
    if not device or not steps:
        raise PublishError(f"{folder} holds no answer of a device; run ci/gpu on one first")
    place = results / "device" / slug(device)
    place.mkdir(parents=True, exist_ok=True)
    written = []
    for step in steps:
        found = {
            "schema_version": 1,
            **step.model_dump(exclude_unset=True),
            "facts": summary.facts,
            "told": summary.told,
            "document": documents.get(step.step),
        }
        path = place / f"{step.step}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        written.append(path)
    return written


def evidence(results: Path = RESULTS) -> list[Published]:
    """Everything that was published."""
    return [
        Published.model_validate(
            {**json.loads(path.read_text()), "path": str(path.relative_to(results))}
        )
        for path in sorted((results / "device").glob("*/*.json"))
    ]


def filled(text: str, found: Iterable[Published]) -> str:
    """The page with the result column of the CUDA table as the evidence has it."""
    by_step: dict[str, list[Published]] = {}
    for one in found:
        by_step.setdefault(one.step, []).append(one)
    head, heading, rest = text.partition(HEADING)
    if not heading:
        raise PublishError(f"the page has no {HEADING!r}")
    lines = []
    for line in rest.split("\n"):
        cells = line.split(" | ")
        row = line.startswith("| ") and not line.startswith(("| ---", "| question"))
        if row and len(cells) >= 3:
            steps = [name for names in ONLY.findall(line) for name in names.split()]
            line = " | ".join([*cells[:-1], f"{_cell(steps, by_step)} |"])
        lines.append(line)
    return head + heading + "\n".join(lines)


def _cell(steps: Sequence[str], by_step: Mapping[str, Sequence[Published]]) -> str:
    known = [one for name in steps for one in by_step.get(name, ())]
    if not known:
        return NOTHING
    parts = []
    for place in dict.fromkeys(_place(one) for one in known):
        told = "; ".join(_told(one) for one in known if _place(one) == place)
        parts.append(f"{place}: {told}")
    if missing := [name for name in steps if name not in by_step]:
        parts.append(f"{', '.join(missing)}: {NOTHING}")
    return ". ".join(parts)


def _place(one: Published) -> str:
    facts = one.facts
    return f"{facts['device']}, torch {facts['torch']}, Triton {facts['triton']}"


def _told(one: Published) -> str:
    """``[verify-smoke](...) holds: 137 cases, 14 of 14 controls caught``."""
    words = [one.verdict or one.state]
    if one.state != "ok" and words != [one.state]:
        words.insert(0, one.state)
    document = one.document or {}
    cases = sum(len(_list(check, "cases")) for check in _list(document, "checks"))
    if cases and isinstance(document.get("controls"), list):
        controls = _list(document, "controls")
        caught = sum(isinstance(each, dict) and bool(each.get("caught")) for each in controls)
        words.append(f"{cases} cases, {caught} of {len(controls)} controls caught")
    elif isinstance(document.get("tests"), int):
        words.append(f"{document['tests']} tests")
    elif one.reason is not None:
        words.append(one.reason)
    return f"[{one.step}]({one.path}) {': '.join(words)}".replace("|", "\\|").replace("\n", " ")


def _list(value: JsonValue, key: str) -> list[JsonValue]:
    """The list under a key, empty where there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; 2 if there is nothing to publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="the output folder of ci/gpu")
    args = parser.parse_args(argv)
    try:
        written = publish(args.folder)
        page = RESULTS / PAGE
        page.write_text(filled(page.read_text(), evidence()))
    except PublishError as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(path.relative_to(ROOT)) for path in (*written, page)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
