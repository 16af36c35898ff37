"""A running server by its address: which API it has is found out by asking."""

from __future__ import annotations

from collections.abc import Mapping

from kvparity.rollouts.layouts.base import Foreign
from kvparity.servers.http import ServerAddress, ServerError, get
from kvparity.servers.reading import as_model
from kvparity.servers.sglang import SglangServer
from kvparity.servers.values import Api, Server
from kvparity.servers.vllm import VllmServer

_MODELS = "/v1/models"


class _ModelCard(Foreign):
    id: str
    owned_by: str
    max_model_len: int | None = None


class _Models(Foreign):
    data: list[_ModelCard]


def connect(at: ServerAddress, api: Api | None = None, model: str | None = None) -> Server:
    """The server at an address. ``api``: the one that is expected; None: whichever it has.
    ``model``: the name that it serves a model under; None: the only one.

    Raises:
        ServerError: nothing answers there, something else does, or the model is not clear.
    """
    what = f"GET {at.url}{_MODELS}"
    cards = as_model(_Models, get(at, _MODELS), what).data
    card = _card(cards, model, what)
    makers: Mapping[str, type[VllmServer] | type[SglangServer]] = {
        "vllm": VllmServer,
        "sglang": SglangServer,
    }
    if card.owned_by not in makers:
        raise ServerError(
            f"{what}: the server calls itself {card.owned_by[:60]!r}; expected vllm or sglang"
        )
    if api is not None and card.owned_by != api:
        raise ServerError(f"{what}: the server is {card.owned_by}, and the contract says {api}")
    return makers[card.owned_by](at, card.id, card.max_model_len)


def _card(cards: list[_ModelCard], model: str | None, what: str) -> _ModelCard:
    fits = [card for card in cards if model in (None, card.id)]
    if len(fits) == 1:
        return fits[0]
    names = ", ".join(card.id for card in cards[:8]) or "no model"
    wanted = f"and {model} was asked for" if model is not None else "expected the name of one"
    raise ServerError(f"{what}: the server serves {names}; {wanted}")
