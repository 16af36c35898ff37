"""What names the weights of a model, and which warnings flex_attention may give."""

from __future__ import annotations

import torch

from kvparity.subjects.hf import describing, flex


def test_every_weight_counts_once_behind_a_tied_one() -> None:
    def model(last: float = 1.0, tied: bool = True) -> torch.nn.Module:
        made = torch.nn.Module()
        for name, value in (("a", 0.0), ("b", 0.0), ("c", last)):
            setattr(made, name, torch.nn.Parameter(torch.full((2, 3), value)))
        if tied:
            made.b = made.a
        return made

    one = describing.fingerprint(model())
    assert one == describing.fingerprint(model())
    assert one != describing.fingerprint(model(last=2.0))
    assert one != describing.fingerprint(model(tied=False))
    other = model()
    other.c = torch.nn.Parameter(other.c.detach().reshape(3, 2))
    assert one != describing.fingerprint(other)


def test_flex_attention_alone_may_use_what_is_deprecated() -> None:
    import warnings

    for name in ("flex_attention", "sdpa"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with flex.quiet(name):
                warnings.warn("an old flag", DeprecationWarning, stacklevel=1)
                warnings.warn("something else", UserWarning, stacklevel=1)
        kinds = [each.category for each in caught]
        assert kinds == [UserWarning] if name != "sdpa" else [DeprecationWarning, UserWarning]
