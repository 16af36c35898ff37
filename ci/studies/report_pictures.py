"""Pictures of ``kvparity report`` for the documentation: made in Chromium, small.

    python ci/studies/report_pictures.py
    python ci/studies/report_pictures.py drift-dark    some of them

Verifies two contracts that differ in one number, writes their pages and that of a recorded rollout,
and takes light, dark, phone and comparison into docs/results/report. Chromium must be installed.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))
from browser import started  # noqa: E402

from kvparity_contracts.library import FOLDER, find  # noqa: E402

OUT = ROOT / "docs/results/report"
COLOURS = 48
SHOTS = (
    # name, page, width, height, dark, where the window begins
    ("light", "run/report.html", 1280, 900, False, "body"),
    ("dark", "run/report.html", 1280, 900, True, "h4 + .wide table.map"),
    ("phone", "run/report.html", 390, 844, False, "body"),
    ("compare", "later/compare.html", 1280, 640, False, "body"),
    ("drift-dark", "drift.html", 1280, 900, True, "body"),
    ("drift-phone", "drift.html", 390, 844, False, "body"),
)


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        shots = [each for each in SHOTS if each[0] in sys.argv[1:]] or SHOTS
        if any(page != "drift.html" for _, page, *_ in shots):
            _runs(folder)
        shutil.copy(FOLDER / "rollout-and-trainer.jsonl", folder / "rollout.jsonl")
        _kvparity(folder, "drift", "rollout.jsonl", "--html", "drift.html")
        OUT.mkdir(exist_ok=True)
        with started(folder / "profile") as browser:
            for name, page, width, height, dark, where in shots:
                browser.open(folder / page, width=width, height=height, dark=dark)
                browser.value(f"document.querySelector('{where}').scrollIntoView()")
                found = Image.open(io.BytesIO(browser.picture()))
                found.quantize(COLOURS).save(OUT / f"{name}.png", optimize=True)


def _runs(folder: Path) -> None:
    text = find("transformers-qwen3-sdpa").read_text(encoding="utf-8")
    for name, generate in (("run", 24), ("later", 20)):
        changed = text.replace("generate: 24}", f"generate: {generate}}}")
        (folder / f"{name}.yaml").write_text(changed, encoding="utf-8")
        _kvparity(folder, "verify", f"{name}.yaml", "--run-dir", name, "--device", "cpu")
    _kvparity(folder, "report", "run", "--html")
    _kvparity(folder, "report", "--compare", "run", "later", "--html")


def _kvparity(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "kvparity", *arguments], cwd=folder,
                          env=os.environ, capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)


if __name__ == "__main__":
    main()
