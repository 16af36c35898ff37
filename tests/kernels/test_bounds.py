"""Values just inside and just outside of what tiles, rules and launches allow."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest
import torch
import triton.language as tl

from kvparity_kernels import launch as launcher
from kvparity_kernels import rules
from kvparity_kernels.launch import LaunchLog, kernel, launch
from kvparity_kernels.tiles import LinearTile, Tiles, candidates

TILE = {"block_m": 16, "block_n": 32, "block_k": 64, "num_warps": 4, "num_stages": 3}


def tile(**changes: Any) -> LinearTile:
    return LinearTile(**(TILE | changes))


def by_rows(*rows: Any) -> Tiles:
    return Tiles(linear=tuple((each, tile()) for each in rows))


FIELDS: dict[str, tuple[Callable[[str, Any], Any], str, list[Any], list[Any]]] = {
    **{
        name: (
            lambda name, value: tile(**{name: value}) if name in TILE else Tiles(**{name: value}),
            "must be a power of two and at least 16, such as 64$",
            [16, 32, 64, 256],
            [0, 8, 15, 17, 24, 48, -16, 16.0, True, "16"],
        )
        for name in ("block_m", "block_n", "block_k", "prefill_block_m", "decode_block_m")
    },
    **{
        name: (
            lambda name, value: tile(**{name: value}) if name in TILE else Tiles(**{name: value}),
            "must be 1, 2, 4, 8 or 16$",
            [1, 2, 4, 8, 16],
            [0, 3, 5, 6, 12, 17, 32, -1, 4.0, True],
        )
        for name in ("num_warps", "prefill_warps", "decode_warps")
    },
    "num_stages": (
        lambda name, value: tile(**{name: value}),
        "must be 1 to 8$",
        [1, 2, 7, 8],
        [0, 9, -1, 2.0, True, None],
    ),
    "skip_hidden": (
        lambda name, value: Tiles(**{name: value}),
        "must be true or false$",
        [True, False],
        [0, 1, None, "no"],
    ),
    "linear": (
        lambda name, value: by_rows(*value),
        r"expected ascending numbers, the last of which may be 0 \(without end\)$",
        [(), (0,), (1,), (2,), (1, 2), (8, 64), (8, 0), (1, 64, 0)],
        [(-1,), (8, 8), (64, 8), (0, 8), (0, 0), (8, 0, 0), (8.0,), (True,), (8, -1, 0)],
    ),
}


@pytest.mark.parametrize("name", FIELDS)
def test_tiles_have_bounds(name: str) -> None:
    make, says, inside, outside = FIELDS[name]
    for value in inside:
        found = make(name, value)
        assert name == "linear" or getattr(found, name) == value
    for value in outside:
        with pytest.raises(ValueError, match=says):
            make(name, value)


def said(name: str) -> Tiles:
    """What a name of a choice for attention says, read from the name."""
    fields: dict[str, Any] = {}
    for part in name.split(","):
        key, _, number = part.partition("=")
        side = next(iter(fields), "").partition("_")[0]
        fields[f"{side}_warps" if key == "warps" else key] = int(number) if number else True
    return Tiles(**fields)


def test_choices_are_what_their_names_say_in_ascending_preference() -> None:
    rules.choices.cache_clear()
    found, alone = rules.choices(), candidates()
    attention = [name for name in reversed(alone) if not name.startswith("linear")]
    both = [f"{name},skip_hidden" for name in attention if name != "skip_hidden"]
    assert list(found) == [*reversed(alone), *both]
    for name in [*attention, *both]:
        assert found[name] == said(name), name
    for name in alone:
        if name.startswith("linear"):
            ((rows, each),) = found[name].linear
            assert (name, rows) == (f"linear {each}", each.block_m if each.block_m < 128 else 0)


@pytest.mark.parametrize("row", ["x", 3, None, [], {}, ["arch"]])
def test_a_row_of_rules_that_is_no_object_is_told(tmp_path: Any, row: Any) -> None:
    import json

    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"version": 1, "rules": [row]}))
    with pytest.raises(rules.RulesError, match="row 1: expected an object with the keys arch"):
        rules.read(path)


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        ({"triton": "3.6.0", "pytorch-triton": "3.1.0"}, "3.6"),
        ({"pytorch-triton": "3.1.0+git5"}, "3.1"),
        ({}, ""),
    ],
)
def test_triton_goes_by_two_names(
    installed: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    rules.triton_version.cache_clear()
    assert rules.triton_version() == wanted
    rules.triton_version.cache_clear()


@kernel(unaligned=("B",))
def copied(A, B, Y, count, N: tl.constexpr):
    lane = tl.arange(0, N)
    tl.store(Y + lane, tl.load(A + lane, mask=lane < count, other=0.0))


def arguments(**changes: Any) -> dict[str, Any]:
    return {"A": torch.ones(4), "B": None, "Y": torch.zeros(4), "count": 3, "N": 4} | changes


@pytest.mark.parametrize("name", ["num_warps", "num_stages", "enable_fp_fusion", "grid", "kernel"])
def test_names_of_options_are_reserved(name: str) -> None:
    with pytest.raises(TypeError, match=f"parameter {name} is reserved or has a default"):
        exec(f"@kernel\ndef bad(X, {name}): pass", {"kernel": kernel})


def test_a_default_is_refused() -> None:
    with pytest.raises(TypeError, match="parameter n is reserved or has a default"):

        @kernel
        def bad(X, n=3):
            pass


def test_a_kernel_is_named_after_its_module_or_the_folder_of_kernels() -> None:
    for module, wanted in (
        ("a.b", "b.f"), ("a.b.kernels", "b.f"), ("kernels", "kernels.f"), ("kernels.b", "b.f"),
    ):  # fmt: skip

        def f(X):
            pass

        f.__module__ = module
        assert kernel(f).name == wanted


LIMITS = (2**31 - 1, 65535, 65535)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_grids_have_limits(axis: int) -> None:
    for size, good in ((0, True), (1, True), (LIMITS[axis], True), (LIMITS[axis] + 1, False)):
        grid = tuple(size if i == axis else 1 for i in range(3))
        if good:
            assert launcher._check(copied, grid, arguments()) == torch.device("cpu")
        else:
            with pytest.raises(ValueError, match="is beyond the limits"):
                launcher._check(copied, grid, arguments())
    with pytest.raises(ValueError, match="is beyond the limits"):
        launcher._check(copied, tuple(-1 if i == axis else 1 for i in range(3)), arguments())


@pytest.mark.parametrize(
    ("placed", "named", "says"),
    [
        (["A", "B", "Y", "count", "N", "N"], [], "given twice, or there are too many"),
        (["A"], ["A", "B", "Y", "count", "N"], "given twice, or there are too many"),
        (["A", "B"], ["Y", "count"], "arguments missing or unknown: N"),
    ],
)
def test_every_argument_is_given_once(placed: list[str], named: list[str], says: str) -> None:
    given = arguments()
    with pytest.raises(TypeError, match=says):
        launch(copied, (1,), *[given[n] for n in placed], **{n: given[n] for n in named})


def test_what_may_be_none_unaligned_or_whole() -> None:
    whole = torch.arange(9.0)
    for a in (whole[:4], whole[1:5]):  # only compiled kernels are promised alignment
        given = arguments(A=a)
        with launcher.record() as log:
            launch(copied, (1,), **given)
        assert torch.equal(given["Y"][:3], a[:3])
        assert log.kernels[copied.name]["dtypes"] == {"A": "float32", "Y": "float32"}
    none = dict.fromkeys(("A", "B", "Y"))
    assert launcher._check(copied, (1,), arguments(**none)) is None
    for wrong in ("3", None, torch.ones(1)):
        with pytest.raises(TypeError, match=r"count is a .*, expected a number"):
            launcher._check(copied, (1,), arguments(count=wrong))
    assert launcher._check(copied, (1,), arguments(count=1.5)) == torch.device("cpu")


def test_a_kernel_that_ran_in_three_forms_has_three_entries() -> None:
    log = LaunchLog()
    for number in (1, 2, 1, 3, 2, 3):
        log.add("k", {"n": number})
    assert log.counts == {"k": 6}
    assert log.kernels == {"k": {"n": 1}, "k [2]": {"n": 2}, "k [3]": {"n": 3}}
