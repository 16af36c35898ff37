"""The built-in codecs: stages in float64 against the stores themselves, and names."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity.core.bits import differing
from kvparity.labs.codec.coding import encode, round_trip
from kvparity.labs.codec.honesty import examine, nbytes
from kvparity.labs.codec.protocol import STAGES, Codec
from kvparity.labs.codec.registry import GROUP, defaults, find, find_one
from kvparity.labs.codec.table import NF4
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity_kernels import store

DATA = Path(__file__).parent / "data"
HERE = Path(__file__).parent
NAMES = [
    "float32",
    "float16",
    "bfloat16",
    "fp8_e4m3(tensor)",
    "fp8_e4m3(head)",
    "fp8_e5m2(head)",
    "int8(8)",
    "int8(16)",
    "int4(4)",
    "int4(16)",
    "nf4(8)",
    "nf4(16)",
]
NONE = frozenset[Any]()


def numbers(dtype: torch.dtype = torch.float32, n: int = 7, dim: int = 16) -> torch.Tensor:
    """Normal numbers of very different sizes by head and token, with zeros and a -0."""
    random = torch.Generator().manual_seed(n)
    x = torch.randn(n, 3, dim, generator=random)
    x *= torch.tensor([1e-3, 1.0, 50.0])[:, None]
    x[2] = 0.0
    x[3, 1, :4] = -0.0
    x[4] *= torch.logspace(-6, 2, 3)[:, None]
    return x.to(dtype)


def codec(name: str) -> Codec:
    return find_one(name, HERE)


def off(a: torch.Tensor, b: torch.Tensor) -> int:
    return int(differing(a, b).sum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_codec_is_what_it_says(name: str, dtype: torch.dtype) -> None:
    """Bytes, nothing kept aside, tokens alone, and no error outside of its stages."""
    one, x = codec(name), numbers(dtype)
    found = examine(one, x, one.calibrate(x), dtype)
    assert found.alone
    assert found.explained
    assert one.name == name
    assert set(one.stages) <= set(STAGES)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("fp8", "int"))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stages_round_as_the_store_does(name: str, dtype: torch.dtype) -> None:
    """A stage that the codec does not have is switched off: the float64 path, all rounding on."""
    one, x = codec(name), numbers(dtype)
    fixed = one.calibrate(x)
    wide = round_trip(one, x, fixed, dtype, frozenset({"codebook"}))
    assert off(wide, round_trip(one, x, fixed, dtype)) == 0
    format = store.StoreFormat.parse(name)
    scale = fixed["scale"].float() if format.static else None
    assert off(wide, store.round_trip(x, format, scale, dtype)) == 0


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("fp8", "int", "nf4"))])
def test_each_stage_takes_its_own_rounding_away(name: str) -> None:
    one, x = codec(name), numbers(torch.float32)
    x[4] = 1.0  # no scale that float16 would lose
    fixed = one.calibrate(x)
    real = round_trip(one, x, fixed, torch.bfloat16)
    for stage in one.stages:
        changed = round_trip(one, x, fixed, torch.bfloat16, frozenset({stage})).float()
        main = "codebook" if "codebook" in one.stages else "cast"
        if stage == main:  # what is left is one rounding to bfloat16
            assert off(changed, x.bfloat16().float()) == 0
        elif stage == "accumulation":
            assert off(changed, round_trip(one, x, fixed, torch.float32)) == 0
            assert off(changed, real.float()) > 0


def test_an_exact_scale_changes_nothing_where_the_scale_is_exact_already() -> None:
    x = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    x[:, :, 0] = 127 / 32
    real, exact = (
        round_trip(codec("int8(16)"), x, {}, torch.float32, e) for e in (NONE, frozenset({"scale"}))
    )
    assert off(real, exact) == 0
    x[:, :, 0] = 1 + 3 * 2.0**-12  # the float16 scale of nf4 loses its last bits
    real, exact = (
        round_trip(codec("nf4(16)"), x, {}, torch.float32, e) for e in (NONE, frozenset({"scale"}))
    )
    assert off(real, exact) > 0


def test_the_table_takes_the_nearest_entry_and_two_fill_a_byte() -> None:
    x = torch.linspace(-1, 1, 401).repeat_interleave(2)[:800].reshape(50, 1, 16).contiguous()
    x[:, :, 0] = 1.0  # the scale
    coded = encode(codec("nf4(16)"), x, {}, NONE)
    assert coded["codes"].shape == (50, 1, 8)
    assert nbytes(coded) == 50 * (8 + 2)
    entries = torch.tensor(NF4)
    wanted = entries[(x[..., None].double() - entries.double()).abs().argmin(-1)]
    assert off(round_trip(codec("nf4(16)"), x, {}, torch.float32), wanted) == 0


def test_large_and_tiny_numbers_stay_finite_in_the_table() -> None:
    x = torch.full((2, 1, 16), 1e6)
    x[1] = 1e-9
    found = round_trip(codec("nf4(16)"), x, {}, torch.float32)
    assert off(found[0], torch.full_like(found[0], 65504.0)) == 0
    assert off(found[1], torch.zeros_like(found[1])) == 0


def test_fp8_scales_come_from_the_calibration_tokens() -> None:
    x = numbers(torch.float32)
    per_head = codec("fp8_e4m3(head)").calibrate(x)["scale"]
    assert off(per_head, x.double().abs().amax((0, 2)) / 448) == 0
    whole = codec("fp8_e4m3").calibrate(x)["scale"]
    assert off(whole, (x.double().abs().max() / 448).expand(3).contiguous()) == 0
    assert codec("fp8_e4m3").calibrate(torch.zeros(2, 3, 16))["scale"].tolist() == [1.0] * 3
    found = round_trip(codec("fp8_e4m3"), 2 * x, {"scale": whole}, torch.float32)
    assert float(found.abs().max()) == pytest.approx(float(x.abs().max()), rel=1e-6)  # saturated


# names


def test_a_pair_has_a_codec_for_keys_and_one_for_values() -> None:
    pair = find("k=int8(16), v=nf4(8)", HERE)
    assert (pair.k.name, pair.v.name, pair.name) == ("int8(16)", "nf4(8)", "k=int8(16),v=nf4(8)")
    assert find("fp8_e4m3", HERE).name == "fp8_e4m3(tensor)"


def test_codecs_come_from_files_modules_and_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codec("data/odd_codecs.py:Honest").name == "honest"
    assert find_one("odd_codecs:Honest", DATA).name == "honest"
    assert codec("data/odd_codecs.py:Fourfold(4,127)").name == "fourfold(4,127)"
    entry = importlib.metadata.EntryPoint("theirs", "odd_codecs:Honest", GROUP)
    monkeypatch.setattr("kvparity.labs.codec.registry.entry_points", lambda group: [entry])
    monkeypatch.syspath_prepend(str(DATA))
    assert codec("theirs").name == "honest"
    twice = importlib.metadata.EntryPoint("theirs", "odd_codecs:Flat", GROUP)
    monkeypatch.setattr("kvparity.labs.codec.registry.entry_points", lambda group: [entry, twice])
    with pytest.raises(UnsupportedError, match="offered twice: odd_codecs:Flat, odd_codecs:Honest"):
        codec("theirs")
    gone = importlib.metadata.EntryPoint("theirs", "no_such_module:X", GROUP)
    monkeypatch.setattr("kvparity.labs.codec.registry.entry_points", lambda group: [gone])
    with pytest.raises(SubjectError, match="does not import"):
        codec("theirs")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is no codec name"),
        ("int3", "no codec is called 'int3'; known are float32"),
        ("int8", "needs the number of elements"),
        ("int8(x)", "takes a positive number"),
        ("nf4", "nf4 needs the number of elements"),
        ("nf4(0)", "nf4 needs the number of elements"),
        ("data/gone.py:Codec", "does not import"),
        ("data/odd_codecs.py:Gone", "has no function 'Gone'"),
        ("data/odd_codecs.py:Stageless", "is no codec: it has no bytes_per_token"),
        ("data/odd_codecs.py:Misnamed", "has the stages 'rounding'"),
        ("data/odd_codecs.py:broken", "raised RuntimeError: cannot be made"),
        ("data/odd_codecs.py:Honest(3)", "raised TypeError"),
    ],
)
def test_what_is_no_codec_is_refused(name: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        codec(name)


def test_the_default_codecs_fit_every_layer() -> None:
    assert defaults({64, 96}) == ("fp8_e4m3(head)", "int8(32)", "int4(32)", "nf4(32)")
    for name in defaults({80}):
        assert codec(name).bytes_per_token(2, 80) > 0
    for name in ("nf4(32)", "int4(32)"):
        with pytest.raises(ValueError, match="80"):
            codec(name).bytes_per_token(2, 80)


# codecs that do not keep their word


def bad(name: str) -> Codec:
    return find_one(f"data/odd_codecs.py:{name}", HERE)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Understates", "says 96 bytes for a token of 3 heads of 16, but its tensors take 192"),
        ("Leaves", "says 192 bytes for a token of 3 heads of 16, but its tensors take 384"),
        ("Keeps", "keeps something that it does not count"),
        ("Raises", "codec honest raised RuntimeError: no such table"),
        ("Flat", r"decode gave torch.float32 \[336\] on cpu, expected torch.float32 \[7, 3, 16\]"),
        ("Overflows", "made NaN or infinities"),
        ("Listed", "encode gave list, expected tensors by name"),
    ],
)
def test_a_codec_that_breaks_its_word_is_caught(name: str, words: str) -> None:
    assert examine(bad("Honest"), numbers(), {}, torch.float32).explained
    with pytest.raises(SubjectError, match=words):
        examine(bad(name), numbers(), {}, torch.float32)


def test_a_shape_that_a_codec_refuses_is_bad_input() -> None:
    with pytest.raises(UnsupportedError, match="codec honest: head dimension 16 is not mine"):
        examine(bad("Refuses"), numbers(), {}, torch.float32)


def test_codes_that_depend_on_neighbours_are_seen() -> None:
    assert examine(bad("Together"), numbers(), {}, torch.float32).alone is False
    assert examine(bad("Honest"), numbers(), {}, torch.float32).alone


def test_an_error_outside_of_its_stages_is_seen() -> None:
    assert examine(bad("Unexplained"), numbers(), {}, torch.float32).explained is False
    assert examine(bad("Fourfold"), numbers(), {}, torch.float32).explained
