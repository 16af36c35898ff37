"""What every module of a transformers model gives for each token, reported while it runs.

Modules are hooked only while somebody listens for :class:`~kvparity.subjects.events.Computed`. A
result has a row for each token if it is ``[B, T, width]`` or ``[B * T, width]``; others (weights of
attention, tokens that were sent to an expert) are not reported. Rows are owned by the step's own
places, never guessed from ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from kvparity.subjects.events import Computed, Places
from kvparity.subjects.hf.protocols import AttentionFunction, CausalLM
from kvparity_kernels.stream import emit, heard

_RECENT = 4
"""An input that is one of the last so many tensors was reported already."""


@dataclass
class Reporter:
    """Hooks of one model and the places of the forward that runs.

    ``columns``: by row of the batch, the position of each column of the cache that is read, None
    for one that belongs to none.
    """

    model: CausalLM
    places: Places = ()
    columns: Places = ()
    names: dict[int, str] = field(default_factory=dict)
    told: deque[Tensor] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def hooks(self) -> Iterator[RemovableHandle]:
        """Hook every module but the model itself."""
        for name, module in self.model.named_modules():
            if name:
                self.names[id(module)] = name
                yield module.register_forward_pre_hook(self._before(name))
                yield module.register_forward_hook(self._after(name))

    def _before(self, name: str) -> Callable[..., None]:
        def given(module: object, args: tuple[object, ...]) -> None:
            if args and not any(args[0] is each for each in self.told):
                self.tell(f"{name} input", args[0])

        return given

    def _after(self, name: str) -> Callable[..., None]:
        def gave(module: object, args: object, out: object) -> None:
            first = out[0] if isinstance(out, tuple) and out else out
            self.tell(name, first)

        return gave

    def tell(self, operation: str, value: object) -> None:
        """Report the rows of a value that has them."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        self.told.append(value)
        batch, width = len(self.places), max(map(len, self.places), default=0)
        shape = tuple(value.shape)
        if len(shape) == 3 and shape[:2] == (batch, width):
            emit(Computed(operation, value, self.places))
        elif len(shape) == 2 and shape[0] == batch * width:
            emit(Computed(operation, value.view(batch, width, -1), self.places))

    def attention(self, function: AttentionFunction) -> AttentionFunction:
        """``function``, with what it was given and what it gave."""

        def attending(
            module: object, query: Tensor, key: Tensor, value: Tensor, *args: object, **more: object
        ) -> tuple[Tensor, Tensor | None]:
            name = self.names.get(id(module), type(module).__name__)
            emit(Computed(f"{name} query", query.transpose(1, 2), self.places))
            for part, read in (("keys", key), ("values", value)):
                columns = _columns(self.columns, read.shape[2])
                emit(Computed(f"{name} {part}", read.transpose(1, 2), columns, read=True))
            found = function(module, query, key, value, *args, **more)
            emit(Computed(f"{name} attention", found[0], self.places))
            return found

        return attending


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
