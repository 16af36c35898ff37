"""Log probabilities: accuracy, independence of rows, temperature, fusion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels.logprob import logprob, naive

UNIT = 2.0**-24
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 5
    return x.to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype == torch.float32
    return int((a.view(torch.int32) != b.view(torch.int32)).sum())


def bound(logits: Tensor, temperature: float, exact: Tensor) -> Tensor:
    """What the float32 roundings can add up to, per row.

    The temperature and the quotient are off by a unit each (in units of max |z|, for the target,
    the maximum and every exponent); z - m rounds once on either side; an exponential is good to 4
    units; a sum of positive terms loses one per level of the tree of a part and one per part, which
    is multiplied once by an exponential; the logarithm (good to 4 units of its value) and the last
    difference round once.
    """
    vocab = logits.shape[1]
    z = (logits.double() / temperature).abs().amax(dim=1)
    spread = 4 * z  # below the maximum of a part, and from there below that of the row
    depth = 4 + 12 + 5 + -(-vocab // 4096)
    log_sum = torch.log(torch.tensor(float(vocab)).double())
    return 1.01 * UNIT * (4 * z + 2 * spread + depth + 4 * log_sum + exact.abs())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab", [1, 7, 256, 2500, 9000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_close_to_float64(vocab: int, temperature: float, dtype: torch.dtype) -> None:
    logits, targets = draw(6, vocab, dtype=dtype), torch.arange(6) % vocab
    exact = naive.logprob(logits, targets, temperature)
    limit = bound(logits, temperature, exact)
    for twin in (False, True):
        found = logprob(logits, targets, temperature, twin=twin)
        assert found.dtype == torch.float32
        assert ((found.double() - exact).abs() <= limit).all()
        if vocab > 1:  # controls: the temperature ignored, the target off by one
            ignored = logprob(logits, targets, 1.01 * temperature, twin=twin)
            assert ((ignored.double() - exact).abs() > limit).any()
            shifted = logprob(logits, (targets + 1) % vocab, temperature, twin=twin)
            assert ((shifted.double() - exact).abs() > limit).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("twin", [False, True])
def test_a_row_depends_on_itself_alone(dtype: torch.dtype, twin: bool) -> None:
    rows = 300 if twin else 30
    logits, targets = draw(rows, 1100, dtype=dtype), torch.arange(rows)
    full = logprob(logits, targets, 0.7, twin=twin)
    for row in (0, 13, rows - 1):
        one = slice(row, row + 1)
        assert differing(logprob(logits[one], targets[one], 0.7, twin=twin), full[one]) == 0
        among = torch.full((5, 1100), float("nan"), dtype=dtype)
        among[3] = logits[row]
        moved = logprob(among, targets[one].expand(5), 0.7, twin=twin)
        assert differing(moved[3:4], full[one]) == 0
        assert moved.isnan().sum() == 4


@pytest.mark.parametrize("twin", [False, True])
def test_parts_are_merged_in_ascending_order(twin: bool) -> None:
    # In units of the first two parts' sums, each later one is half a unit: lost one by one, while
    # in any other order they would be added to each other first.
    parts = torch.full((4, 4096), -torch.inf)
    parts[0, 5], parts[2:, 7] = 0.0, float(torch.log(torch.tensor(2.0**-24)))
    targets = torch.tensor([5])
    found = logprob(parts.reshape(1, -1), targets, 1.0, twin=twin)
    assert found.view(torch.int32).tolist() == [0]
    late = logprob(parts.flip(0).reshape(1, -1), targets + 3 * 4096, 1.0, twin=twin)
    assert late.item() < 0


@pytest.mark.parametrize("twin", [False, True])
def test_a_part_without_a_finite_logit_adds_nothing(twin: bool) -> None:
    logits = draw(2, 5000)
    full = logprob(logits[:, :4096], torch.tensor([1, 2]), 0.7, twin=twin)
    logits[:, 4096:] = -torch.inf
    assert differing(logprob(logits, torch.tensor([1, 2]), 0.7, twin=twin), full) == 0
    for bad in (torch.nan, torch.inf):
        logits[:, 4999] = bad
        assert logprob(logits, torch.tensor([1, 2]), 0.7, twin=twin).isnan().all()


def test_log_of_softmax_is_another_number() -> None:
    logits, targets = draw(40, 256), torch.arange(40)
    unfused = torch.log(torch.softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0])
    for twin in (False, True):
        assert differing(logprob(logits, targets, 1.0, twin=twin), unfused) > 0
    # Where a probability underflows, only the fused form has an answer.
    far = torch.tensor([[0.0, 200.0]])
    assert logprob(far, torch.tensor([0]), 1.0).item() == -200.0
    assert torch.log(torch.softmax(far, dim=-1))[0, 0].item() == -float("inf")


@pytest.mark.parametrize("twin", [False, True])
def test_the_temperature_divides_the_logits(twin: bool) -> None:
    logits, targets = draw(20, 300), torch.arange(20)
    found = logprob(logits, targets, 0.7, twin=twin)
    t = torch.tensor(0.7)
    assert differing(found, logprob(logits / t, targets, 1.0, twin=twin)) == 0
    inverse = logprob(logits * (1 / t), targets, 1.0, twin=twin)
    assert differing(found, inverse) > 0  # control: multiplied by the reciprocal


@pytest.mark.parametrize("twin", [False, True])
def test_special_rows(twin: bool) -> None:
    inf, nan = float("inf"), float("nan")
    logits = torch.tensor([[0.0, -inf, 0.0], [1.0, inf, 0.0], [-inf, -inf, -inf], [nan, 1.0, 0.0]])
    found = logprob(logits, torch.tensor([1, 0, 0, 1]), 1.0, twin=twin)
    assert found[0].item() == -inf
    assert found[1:].isnan().all()


def test_unknown_targets_give_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    # What happens on a GPU, where targets are not looked at before the launch.
    monkeypatch.setattr("kvparity_kernels.arguments.require_indices", lambda *_: None)
    found = logprob(draw(4, 9), torch.tensor([-1, 2, 9, 2**40]), 1.0)
    assert found.isnan().tolist() == [True, False, True, True]


def test_refusals() -> None:
    logits, targets = draw(2, 8), torch.tensor([0, 7])
    for x, t, temperature, words in (
        (logits, targets, 0.0, "temperature is 0.0, expected a finite number > 0"),
        (logits, targets, float("nan"), "temperature is nan"),
        (logits, targets, float("inf"), "temperature is inf"),
        (logits, targets + 1, 1.0, "targets holds values 1 .. 8, expected 0 .. 7"),
        (logits, targets[:1], 1.0, r"targets has shape \[1\], expected \[2\]"),
        (logits, targets.int(), 1.0, "targets has dtype torch.int32"),
        (logits.double(), targets, 1.0, "logits has dtype torch.float64"),
        (draw(8, 2).T, targets, 1.0, "last dimension of logits has stride 2"),
        (logits[:, :0], targets, 1.0, "no columns"),
    ):
        with pytest.raises(ValueError, match=words):
            logprob(x, t, temperature)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        logprob(logits.to("meta"), targets.to("meta"), 1.0, twin=True)
