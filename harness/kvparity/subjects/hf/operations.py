"""What every module of a transformers model gives for each token, reported while it runs.

Modules are hooked only while somebody listens for :class:`~kvparity.subjects.events.Computed`. A
result has a row for each token if it is ``[B, T, width]``, ``[B, T, heads, width]`` or
``[B * T, width]``; others (weights of attention) are not reported, nor what lies inside experts,
whose rows are tokens in another order. Rows are owned by the step's own places, never guessed from
ids. What a forward calls again (a module that layers share) is an operation of its own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from kvparity.subjects.events import Computed, Places
from kvparity.subjects.hf.protocols import AttentionFunction, CausalLM
from kvparity_kernels.relied.torch import MODES_OFF
from kvparity_kernels.stream import emit, heard

_RECENT = 4
"""An input that is one of the last so many tensors was reported already."""


@dataclass
class Reporter:
    """Hooks of one model and the places of the forward that runs.

    ``columns``: by row of the batch, the position of each column of the cache that is read, None
    for one that belongs to none. ``shown``: by mask of this forward, what its rows are shown.
    """

    model: CausalLM
    places: Places = ()
    columns: Places = ()
    names: dict[int, str] = field(default_factory=dict)
    told: deque[Tensor] = field(default_factory=lambda: deque(maxlen=_RECENT))
    calls: Counter[str] = field(default_factory=Counter)
    shown: list[tuple[Tensor | None, Tensor]] = field(default_factory=list)

    def begin(self, places: Places, columns: Places) -> None:
        """Another forward, with these places and columns."""
        self.places, self.columns = places, columns
        self.calls.clear()
        self.shown.clear()

    def call(self, operation: str) -> str:
        """Its name in this call: without the number, rows of the last call would stand for all."""
        self.calls[operation] += 1
        number = self.calls[operation]
        return operation if number == 1 else f"call {number} of {operation}"

    def hooks(self) -> Iterator[RemovableHandle]:
        """Hook every module but the model itself."""
        for name, module in self.model.named_modules():
            if name:
                self.names[id(module)] = name
            if name and ".experts." not in name:
                yield module.register_forward_pre_hook(self._before(name))
                yield module.register_forward_hook(self._after(name))

    def _before(self, name: str) -> Callable[..., None]:
        def given(module: object, args: tuple[object, ...]) -> None:
            operation = self.call(f"{name} input")
            if args and not any(args[0] is each for each in self.told):
                self.tell(operation, args[0])

        return given

    def _after(self, name: str) -> Callable[..., None]:
        def gave(module: object, args: object, out: object) -> None:
            first = out[0] if isinstance(out, tuple) and out else out
            self.tell(self.call(name), first)

        return gave

    def tell(self, operation: str, value: object) -> None:
        """Report the rows of a value that has them."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        self.told.append(value)
        batch, width = len(self.places), max(map(len, self.places), default=0)
        shape = tuple(value.shape)
        heads = len(shape) == 4 and shape[2] != width  # [B, heads, T, width] where both are as many
        if (len(shape) == 3 or heads) and shape[:2] == (batch, width):
            emit(Computed(operation, value, self.places))
        elif len(shape) == 2 and shape[0] == batch * width:
            emit(Computed(operation, value.view(batch, width, -1), self.places))

    def attention(self, function: AttentionFunction) -> AttentionFunction:
        """``function``, with what it was given and what it gave."""

        def attending(
            module: object, query: Tensor, key: Tensor, value: Tensor, *args: object, **more: object
        ) -> tuple[Tensor, Tensor | None]:
            name = self.names.get(id(module), type(module).__name__)
            query_name, attention = self.call(f"{name} query"), self.call(f"{name} attention")
            emit(Computed(query_name, query.transpose(1, 2), self.places))
            for part, read in (("keys", key), ("values", value)):
                columns = _columns(self.columns, read.shape[2])
                emit(
                    Computed(self.call(f"{name} {part}"), read.transpose(1, 2), columns, read=True)
                )
            self._seen(name, query, args[0] if args else more.get("attention_mask"))
            found = function(module, query, key, value, *args, **more)
            emit(Computed(attention, found[0], self.places))
            return found

        return attending

    def _seen(self, name: str, query: Tensor, mask: object) -> None:
        """Report of each row the first position that its mask shows, and how many.

        Without a mask a single query sees all keys, and of several each all up to its own, as
        torch's causal attention has it. Layers share their masks, and what is read of them.
        """
        operation, rows = self.call(f"{name} keys seen"), query.shape[2]
        if mask is None or (isinstance(mask, Tensor) and mask.dim() == 4):
            if not any(mask is other for other, _ in self.shown):
                self.shown.append((mask, _seen_keys(self.columns, mask, rows)))
            seen = next(found for other, found in self.shown if mask is other)
            emit(Computed(operation, seen, self.places))


def _seen_keys(columns: Places, mask: Tensor | None, rows: int) -> Tensor:
    """Float32 ``[B, rows, 2]``: of each row the first position that is shown, and how many are.

    What that takes of torch is no operation of the model.
    """
    with MODES_OFF.get()():
        return _first_and_count(columns, mask, rows)


def _first_and_count(columns: Places, mask: Tensor | None, rows: int) -> Tensor:
    width = max(map(len, columns), default=0) if mask is None else mask.shape[3]
    named = _columns(columns, width)
    positions = torch.tensor([[-1 if each is None else each[1] for each in row] for row in named])
    if mask is None:
        shown = torch.ones(1, rows, width, dtype=torch.bool)
        shown = shown if rows == 1 else shown.tril()
    else:
        own = mask[:, 0].cpu()
        shown = own if own.dtype == torch.bool else own > torch.finfo(own.dtype).min / 2
    shown = shown & (positions >= 0)[:, None]
    first = positions.gather(1, shown.to(torch.uint8).argmax(-1))
    return torch.stack([first, shown.sum(-1)], -1).float()


def _columns(columns: Places, width: int) -> Places:
    """Of the columns that exist, those that a layer reads: of a window the newest, of a static
    cache more than are filled."""
    return [
        [*row[len(row) - width :]] if len(row) >= width else [*row, *[None] * (width - len(row))]
        for row in columns
    ]


_reporter: ContextVar[Reporter | None] = ContextVar("kvparity_reporter", default=None)


@contextmanager
def reporting(model: CausalLM, places: Places = (), columns: Places = ()) -> Iterator[Reporter]:
    """Report what forward calls inside compute, if somebody listens."""
    reporter = Reporter(model, places, columns)
    if not heard(Computed):
        yield reporter
        return
    token = _reporter.set(reporter)
    with ExitStack() as stack:
        stack.callback(_reporter.reset, token)
        for handle in reporter.hooks():
            stack.callback(handle.remove)
        yield reporter


def attended(function: AttentionFunction) -> AttentionFunction:
    """The attention function, reported where a forward is."""
    reporter = _reporter.get()
    return function if reporter is None else reporter.attention(function)
