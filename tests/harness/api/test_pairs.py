"""A pair of functions, checked from Python without a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import kvparity
from kvparity.api import pairs, written
from kvparity.api.reports import ONCE
from kvparity.cli.main import main
from kvparity.core.errors import RunFolderError, SubjectError
from kvparity.core.exit_codes import ExitCode
from kvparity.core.isolation.inside import here
from kvparity.run.jobs import Jobs
from kvparity.run.options import BUDGET_S

SMALL = {"heads": (2, 1, 16), "lengths": (1, 3, 9), "paths": ("decode", "batched")}


def _row(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One query ``[H, D]`` of keys ``[n, Hkv, D]``."""
    group = q.shape[0] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1).float() for x in (k, v))
    weights = torch.softmax((k * q.float()).sum(-1) * scale, 0)
    return (weights[..., None] * v).sum(0).to(q.dtype)


def prefill(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, scale: float
) -> Tensor:
    out = torch.zeros_like(q)
    for (a, c), (b, d) in pairwise(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)):
        for row in range(a, b):
            keys = slice(c, d - (b - 1 - row))
            out[row] = _row(q[row], k[keys], v[keys], scale)
    return out


def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float) -> Tensor:
    out = torch.zeros_like(q)
    for row, n in enumerate(kv_lens.tolist()):
        if n:
            out[row] = _row(q[row], k_cache[row, :n], v_cache[row, :n], scale)
    return out


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_functions_of_a_test_hold_and_leave_the_process_as_it_was() -> None:
    torch.set_num_threads(2)
    found = kvparity.check_pair(prefill, decode, **SMALL)
    assert found.holds
    assert found.verdict == "holds"
    assert torch.get_num_threads() == 2
    assert {case.path for case in found.cases} == {"prefill", "decode", "batched"}
    assert all(control.caught for control in found.controls)
    assert found.first_difference() is None
    assert (found.run_dir / "run.json").is_file()
    torch.set_num_threads(1)


@pytest.mark.parametrize("lengths", [(1,), (1, 2), (2, 5), (30,)])
def test_default_paths_fit_any_lengths(lengths: tuple[int, ...]) -> None:
    found = kvparity.check_pair(prefill, decode, heads=(2, 1, 16), lengths=lengths)
    paths = [case.path for case in found.cases]
    assert ("chunked(24)" in paths) == (max(lengths) > 24)
    assert "decode" in paths


def test_another_order_differs_and_says_where() -> None:
    def flipped(
        q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float
    ) -> Tensor:
        k, v = k_cache.clone(), v_cache.clone()
        for row, n in enumerate(kv_lens.tolist()):
            k[row, :n], v[row, :n] = k[row, :n].flip(0), v[row, :n].flip(0)
        return decode(q, k, v, kv_lens=kv_lens, scale=scale)

    found = kvparity.check_pair(prefill, flipped, **SMALL)
    assert found.verdict == "differs"
    first = found.first_difference()
    assert first is not None
    assert first.first_divergence is not None
    assert "ulp" in str(found)
    # Nobody but this process has the function: a replay is not advised.
    assert "kvparity replay" not in str(found)
    assert "where it begins: " not in str(found)
    assert str(found).endswith(ONCE)
    assert "DIFFERS" in found._repr_html_()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module ``mine`` of the current folder. Its decode adds ``OFF``, 0 as the file has it."""
    text = Path(__file__).read_text().split("@pytest.fixture")[0]
    text = text.replace("def decode(", "OFF = 0.0\n\n\ndef decode(")
    Path("mine.py").write_text(text.replace("k_cache[row, :n],", "k_cache[row, :n] + OFF,"))
    spec = spec_from_file_location("mine", "mine.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mine", module)
    spec.loader.exec_module(module)
    return module


def test_functions_of_a_module_run_as_they_are_here_and_again_from_their_file(
    own: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = []
    monkeypatch.setattr(pairs, "inside", lambda: False)
    monkeypatch.setattr(written, "kept_located", lambda run, *args: budgets.append(args[-1]) or run)
    assert kvparity.check_pair(own.prefill, own.decode, **SMALL).holds
    own.OFF = 0.5  # in this process, not in the file
    found = kvparity.check_pair(own.prefill, own.decode, **SMALL)
    first = found.first_difference()
    assert first is not None, "the file was run in place of the function"
    assert f"kvparity replay {found.run_dir} {first.id}" in str(found)
    assert ONCE not in str(found)
    assert [each.name[13:] for each in (found.run_dir / "kept").glob("*.py")] == ["mine.py"]
    assert main(["replay", str(found.run_dir), first.id]) == ExitCode.VOID  # 0 in the file
    assert "every bit is equal" in capsys.readouterr().out
    kvparity.check_pair(own.prefill, lambda *q, **more: own.decode(*q, **more), **SMALL)
    kvparity.check_pair(own.prefill, own.decode, locate=0, **SMALL)
    assert budgets == [BUDGET_S, BUDGET_S, 0, 0]


def test_a_limit_that_is_broken_differs() -> None:
    def half(*args: Tensor, **more: object) -> Tensor:
        return prefill(*args, **more) * 0.5  # type: ignore[arg-type]

    found = kvparity.check_pair(half, decode, **SMALL)
    assert {c.name: c.verdict for c in found.checks}["close to float64"] == "differs"


def test_without_a_limit_only_bits_are_asked_for() -> None:
    found = kvparity.check_pair(prefill, decode, max_abs=None, **SMALL)
    assert [check.relation for check in found.checks] == ["invariance"]


@pytest.mark.slow
def test_functions_by_name_run_apart_and_rows_are_recomputed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvparity.run.pools.jobs_of", lambda *_, **__: Jobs(1, "of a test"))
    name = Path(__file__)
    Path("own.py").write_text(name.read_text().split("@pytest.fixture")[0])
    with here(False):  # the tests' own setting is that subjects run in this process
        found = kvparity.check_pair("own.py:prefill", "own.py:decode", **SMALL)
    assert found.holds
    assert found.run.recheck.rows > 0
    assert found.run.recheck.skipped is None


def test_a_file_that_another_process_wrote_meanwhile_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A refused run removes its own file once: then one of that name is another's."""

    def refused(*args: object, **more: object) -> None:
        raise RunFolderError("another kvparity began a run in it")

    def then_another_writes(file: Path, missing_ok: bool = False) -> None:
        remove(file, missing_ok=missing_ok)
        file.write_text("another's")

    remove = Path.unlink
    monkeypatch.setattr(written, "verify", refused)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", then_another_writes)
        with pytest.raises(RunFolderError, match="another kvparity"):
            kvparity.check_pair(prefill, decode, run_dir="run", **SMALL)
    assert Path("run.json").read_text() == "another's"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"paths": ("chunkd(24)",)}, "checks[0].paths[0]: found 'chunkd(24)'"),
        ({"lengths": ()}, "workloads[0].prompt_tokens: found an empty list"),
        ({"controls": ["stale-slott"]}, "did you mean stale-slot?"),
        ({"heads": (3, 2, 16)}, "expected a multiple of kv (2)"),
        ({"dtype": "float33"}, "max_abs: expected a limit for float33"),
        ({"dtype": "float33", "max_abs": 1.0}, "found 'float33'"),
        ({"device": "cpu:3"}, "a machine has one 'cpu'"),
        ({"timeout": 0}, "timeout 0: expected seconds"),
        ({"subject": {"windw": 3}}, "did you mean window?"),
        ({"decode": "own.py:decode"}, "two functions, or two names"),
        ({"heads": (2, 1)}, "heads: found (2, 1), expected three numbers"),
        ({"heads": 4}, "heads: found 4, expected three numbers"),
        ({"heads": (torch.tensor(2), 1, 16)}, "expected numbers, texts, and lists"),
        ({"dtype": None}, "max_abs: expected a limit for None"),
        ({"lengths": "9"}, "workloads[0].prompt_tokens: found '9'"),
        ({"controls": None}, "controls: found"),
        ({"paths": 3}, "checks[0].paths: found"),
        ({"subject": {"prefill": "a:b"}}, "subject: found 'prefill'"),
        ({"subject": {"window": {3}}}, "expected numbers, texts, and lists"),
        ({"name": "a/b"}, "name: found 'a/b', expected lower-case letters"),
        ({"name": 3}, "name: found 3, expected lower-case letters"),
        ({"timeout": "3"}, "timeout '3': expected seconds"),
        ({"device": torch.device("meta")}, "device 'meta' is unknown"),
    ],
)
def test_what_means_nothing_is_refused_and_leaves_nothing(
    wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=r"expected|unknown|argument of its own|found") as found:
        kvparity.check_pair(**({"prefill": prefill, "decode": decode} | SMALL | wrong))  # type: ignore[arg-type]
    assert words in str(found.value)
    assert not [each for each in Path().rglob("*") if each.is_file()]


def test_a_folder_of_others_stays_as_it_is() -> None:
    Path("theirs").mkdir()
    Path("theirs/note.txt").write_text("mine")
    with pytest.raises(RunFolderError):
        kvparity.check_pair(prefill, decode, run_dir="theirs", **SMALL)
    assert [str(each) for each in Path().rglob("*") if each.is_file()] == ["theirs/note.txt"]


def test_a_function_that_raises_is_the_subjects_error() -> None:
    def broken(*args: Tensor, **more: object) -> Tensor:
        raise RuntimeError("no such tile")

    with pytest.raises(SubjectError, match="no such tile"):
        kvparity.check_pair(prefill, broken, **SMALL)


def test_a_report_is_no_truth_value() -> None:
    found = kvparity.check_pair(prefill, decode, max_abs=None, **SMALL)
    with pytest.raises(TypeError, match="holds"):
        assert found


def test_importing_kvparity_imports_no_torch() -> None:
    code = "import sys, kvparity as k; k.__version__, dir(k); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _off(*args: Tensor, **more: object) -> Tensor:
    return decode(*args, **more) * (1 + 2**-20)  # type: ignore[arg-type]


def test_a_folder_that_is_used_again_has_the_functions_of_this_call() -> None:
    """The process remembers no function by the name of a folder."""
    assert kvparity.check_pair(prefill, decode, run_dir="run", **SMALL).holds
    shutil.rmtree("run")
    Path("run.json").unlink()
    assert kvparity.check_pair(prefill, _off, run_dir="run", **SMALL).verdict == "differs"


@pytest.mark.parametrize("more", [{}, {"generate": -1}], ids=["sound", "refused"])
def test_a_file_beside_run_dir_is_left_alone(more: dict[str, int]) -> None:
    Path("run.json").write_text("mine")
    with pytest.raises(RunFolderError, match=r"run\.json is there"):
        kvparity.check_pair(prefill, decode, run_dir="run", **SMALL, **more)  # type: ignore[arg-type]
    assert Path("run.json").read_text() == "mine"


def test_calls_in_threads_take_turns() -> None:
    def call(number: int) -> str:
        return kvparity.check_pair(prefill, (decode, _off)[number % 2], **SMALL).verdict

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == ["holds", "differs"] * 2


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_is_no_function_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected two functions, or two names"):
        kvparity.check_pair(wrong, decode, **SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("subject", "words"),
    [({"signature": "vllm", "page": 4}, "found 'signature'"), (["window"], "expected keys of")],
)
def test_a_signature_is_said_once(subject: Any, words: str, tmp_path: Path) -> None:
    """The one of the subject would be used, and the argument not."""
    with pytest.raises(ValueError, match=words):
        kvparity.check_pair(
            print, print, signature="sdpa", heads=(4, 2, 8), subject=subject, run_dir=tmp_path / "r"
        )
