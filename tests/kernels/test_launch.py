"""What the launcher accepts, refuses and records; and that lengths do not make it compile anew."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity_kernels import launch as launcher
from kvparity_kernels.launch import Kernel, LaunchLog, kernel, launch, record

# isort: split
import triton
import triton.language as tl

PACKAGE = Path(launcher.__file__).parent
HERE = Path(__file__).parent


@kernel(unaligned=("LENGTHS",))
def scaled(X, Y, LENGTHS, factor, N: tl.constexpr):
    lane = tl.arange(0, N)
    seen = lane < tl.load(LENGTHS + tl.program_id(0))
    at = tl.program_id(0) * N + lane
    tl.store(Y + at, tl.load(X + at, mask=seen, other=0.0) * factor, mask=seen)


def arguments(**changes: Any) -> dict[str, Any]:
    x = torch.ones(2, 16)
    lengths = torch.tensor([16, 3], dtype=torch.int32)
    return {"X": x, "Y": torch.zeros(2, 16), "LENGTHS": lengths, "factor": 2.0, "N": 16} | changes


def test_a_declaration_sorts_the_parameters() -> None:
    assert scaled.name == "test_launch.scaled"
    assert scaled.parameters == ("X", "Y", "LENGTHS", "factor", "N")
    assert scaled.pointers == {"X", "Y", "LENGTHS"}
    assert scaled.scalars == {"factor"}
    assert scaled.constexprs == {"N"}
    with pytest.raises(TypeError, match="num_warps is reserved"):

        @kernel
        def bad(X, num_warps):
            pass

    with pytest.raises(TypeError, match=r"unaligned names no pointer: \['Z'\]"):

        @kernel(unaligned=("Z",))
        def worse(X):
            pass


def test_what_lengths_and_addresses_decide_is_never_compiled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, list[str]] = {}
    monkeypatch.setattr(triton, "jit", lambda **options: lambda fn: given.update(options) or fn)

    @kernel(unaligned=("B",))
    def some(A, B, rows, width, N: tl.constexpr):
        pass

    wanted = ["B", "rows", "width"]
    assert given == {"do_not_specialize": wanted, "do_not_specialize_on_alignment": wanted}
    assert (some.pointers, some.scalars, some.constexprs) == ({"A", "B"}, {"rows", "width"}, {"N"})


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("kernels", "kernels.some"),
        ("linear.kernels", "linear.some"),
        ("package.linear.kernels", "linear.some"),
        ("package.linear", "linear.some"),
    ],
)
def test_a_kernel_is_named_after_its_folder(module: str, name: str) -> None:
    def some(A):
        pass

    some.__module__ = module
    assert kernel(some).name == name


def test_a_compiled_kernel_runs_where_its_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []
    monkeypatch.setattr(launcher, "MODE", "compiled")
    monkeypatch.setattr(torch.cuda, "device", lambda place: devices.append(place) or nullcontext())
    spy, none = Spy(), frozenset[str]()
    fake = Kernel("spy", spy, ("X", "Y"), none, frozenset("XY"), none, none)
    launch(fake, (1,), X=None, Y=torch.empty(4, device="meta"))
    assert devices == [torch.device("meta")]
    launch(fake, (1,), X=None, Y=None)
    assert len(devices) == 1
    assert len(spy.options) == 2


def test_launches_by_name_and_by_place() -> None:
    named = arguments()
    launch(scaled, (2,), **named)
    placed = arguments()
    launch(scaled, (2,), *[placed[n] for n in ("X", "Y", "LENGTHS", "factor")], N=16)
    assert named["Y"].sum() == placed["Y"].sum() == 38
    launch(scaled, (0,), **placed)  # nothing to do
    every = arguments()
    launch(scaled, (2,), *every.values())
    assert every["Y"].sum() == 38


@pytest.mark.parametrize(
    ("grid", "changes", "error", "says"),
    [
        ((1,), {"extra": 1}, TypeError, "missing or unknown: extra"),
        ((1,), {"X": 3}, TypeError, "X is a int, not a tensor"),
        ((1,), {"factor": torch.ones(1)}, TypeError, "factor is a Tensor, expected a number"),
        ((1, 65536), {}, ValueError, "beyond the limits"),
        ((2**31,), {}, ValueError, "beyond the limits"),
        ((1, 1, 65536), {}, ValueError, "beyond the limits"),
        ((1,), {"X": None, "Y": 3}, TypeError, "Y is a int, not a tensor"),
        ((-1,), {}, ValueError, "beyond the limits"),
        ((1,), {"X": torch.empty(2, 16, device="meta")}, ValueError, "X is on meta, but"),
        ((1,), {"Y": torch.empty(2, 16, device="meta")}, ValueError, "Y is on meta, others on cpu"),
    ],
)
def test_refusals(
    grid: tuple[int, ...], changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        launch(scaled, grid, **arguments(**changes))


def test_only_declared_kernels_with_each_argument_once() -> None:
    plain: Any = triton.jit(scaled.function.fn)
    with pytest.raises(TypeError, match="is not declared with"):
        launch(plain, (1,))
    with pytest.raises(TypeError, match="given twice"):
        launch(scaled, (1,), torch.ones(1), **arguments())


def test_what_is_recorded() -> None:
    with record() as whole:
        launch(scaled, (2,), **arguments())
        with record() as part:
            launch(scaled, (2,), **arguments())
            launch(scaled, (2,), num_warps=8, **arguments(X=torch.ones(2, 16).half()))
        launch(scaled, (2,), **arguments())
    launch(scaled, (2,), **arguments())
    name = "test_launch.scaled"
    assert whole.counts == {name: 4}
    assert part.counts == {name: 2}
    assert [*whole.kernels] == [*part.kernels] == [name, f"{name} [2]"]
    assert whole.kernels[name] == {
        "constexprs": {"N": 16},
        "dtypes": {"LENGTHS": "int32", "X": "float32", "Y": "float32"},
        "num_warps": 4,
        "num_stages": 2,
        "enable_fp_fusion": False,
        "mode": "interpreter",
        "hash": "interpreter",
    }
    assert part.kernels[f"{name} [2]"]["dtypes"]["X"] == "float16"
    assert LaunchLog().counts == {}


class Spy:
    """Stands for a compiled function and keeps the options that it was launched with."""

    hash = "abc"

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda **options: self.options.append(options) or self


def options_of(module: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    spy = Spy()
    fake = Kernel("spy", spy, ("X",), frozenset(), frozenset("X"), frozenset(), frozenset())
    monkeypatch.setattr(module, "Kernel", Kernel)
    module.launch(fake, (1,), X=torch.ones(4), num_warps=2, num_stages=3)
    return spy.options[0]


def test_contraction_is_switched_off_at_every_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"num_warps": 2, "num_stages": 3, "enable_fp_fusion": False}
    options = options_of(launcher, monkeypatch)
    assert {name: options[name] for name in wanted} == wanted
    # The control: a launcher without the flag is seen.
    source = Path(launcher.__file__).read_text()
    assert source.count(', "enable_fp_fusion": False}') == 1
    (tmp_path / "loose_launch.py").write_text(source.replace(', "enable_fp_fusion": False}', "}"))
    monkeypatch.syspath_prepend(tmp_path)
    import loose_launch

    assert "enable_fp_fusion" not in options_of(loose_launch, monkeypatch)
    monkeypatch.delitem(sys.modules, "loose_launch")


def offences(source: str) -> list[str]:
    """What no kernel may contain: tuning, atomics, other dots, launches past the launcher."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            if node.attr in ("autotune", "heuristics", "Autotuner"):
                found.append(node.attr)
            if node.attr.startswith("atomic_"):
                found.append(node.attr)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("triton"):
            found += [a.name for a in node.names if a.name in ("autotune", "heuristics")]
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) == "tl.dot":
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if options.get("input_precision") != "'ieee'":
                    found.append("dot without ieee")
            if isinstance(node.func, ast.Subscript):
                found.append("launch past the launcher")
    return found


def test_no_kernel_tunes_itself_or_adds_atomically() -> None:
    sources = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    assert len(sources) > 10
    found = {path.name: offences(text) for path, text in sources.items() if offences(text)}
    assert found == {"launch.py": ["launch past the launcher"] * 2}  # the launcher itself


@pytest.mark.parametrize(
    "source",
    [
        "@triton.autotune(configs=[], key=[])\ndef f(): pass",
        "@triton.heuristics({})\ndef f(): pass",
        "from triton import autotune",
        "tl.atomic_add(P, 1.0)",
        "tl.dot(a, b)",
        "tl.dot(a, b, input_precision='tf32')",
        "f[(1,)](x)",
    ],
)
def test_the_lint_sees(source: str) -> None:
    assert len(offences(source)) == 1


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(HERE / "count_compile_keys.py")],
        env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.compile
def test_one_compilation_serves_all_lengths(keys: dict[str, int]) -> None:
    attention = {k: n for k, n in keys.items() if k.startswith("attention.")}
    assert attention == {
        "attention.prefill": 1,
        "attention.decode_split": 1,
        "attention.decode_combine": 1,
    }
    # The control: the same calls to the same kernels, decorated plainly.
    plain = {k: n for k, n in keys.items() if k.startswith("plain ")}
    assert len(plain) == 3
    assert min(plain.values()) > 1
