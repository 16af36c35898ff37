"""The page about Python: what it shows is run."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvparity
from kvparity.core.isolation.inside import here

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text()
CONTRACT = """\
version: 1
name: pair
subject:
  kind: attention
  prefill: kernels.py:prefill
  decode: kernels.py:decode
  heads: {query: 4, kv: 2, dim: 16}
numerics: {execution: float32}
workloads:
  - {name: prompts, prompt_tokens: [2, 5], generate: 3}
checks:
  - {name: same bits, relation: invariance, paths: [decode]}
controls: [narrow-cache]
"""
BLOCKS = re.findall(r"```python[^\n]*\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an example writes is gone with the test; its subject needs no process of its own."""
    monkeypatch.chdir(tmp_path)
    with here():
        yield


def run(name: str, text: str) -> None:
    Path(name).write_text(text)
    runpy.run_path(name, run_name="__main__")


def test_the_pair_of_the_page_holds_and_a_broken_one_does_not() -> None:
    run("pair.py", BLOCKS[0])
    with pytest.raises(AssertionError, match="DIFFERS"):
        run("pair.py", BLOCKS[0].replace("k_cache[i, :n]", "k_cache[i, :n].flip(0)"))


def test_functions_of_another_signature_are_checked_as_the_page_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = (each for each in BLOCKS if "signature=" in each)
    assert len(example.strip().splitlines()) <= 10
    run("signature.py", example)
    assert "decode reduces like prefill" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("title", "printed"),
    [("model.py", "generate agrees with one forward pass"), ("rollout.py", "DIFFERS: 1 of 3 tok")],
)
def test_a_model_and_a_rollout(
    title: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(title, re.findall(rf"title={title}\n(.*?)```", PAGE, re.DOTALL)[0])
    assert printed in capsys.readouterr().out


def test_where_a_run_parts_is_found_as_the_page_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = (each for each in BLOCKS if "kvparity.locate(" in each)
    Path("pair.yaml").write_text(CONTRACT)
    Path("kernels.py").write_text(BLOCKS[0].partition("report =")[0].replace(
        "k_cache[i, :n], v_cache[i, :n]", "k_cache[i, :n].flip(0), v_cache[i, :n].flip(0)"
    ))  # fmt: skip
    run("where.py", example)
    printed = capsys.readouterr().out
    assert "c000: decode against prefill over prompts" in printed
    assert "cause: reduction order: " in printed
    assert re.search(r"differs first, by \d+ ulps? \(head", printed)


def test_what_the_page_names_is_there() -> None:
    for name in re.findall(r"kvparity\.(\w+)\(", PAGE):
        assert callable(getattr(kvparity, name))
    for name in re.findall(r"report\.(\w+)", PAGE) + re.findall(r"`\.(\w+)`", PAGE):
        if name not in ("problems",):
            fields = {*vars(kvparity.Report), *vars(kvparity.RolloutDrift)}
            assert name in fields | {"run", "tokens"}, name
