"""A running server as the subject: what a contract says of it, and what must agree with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from kvparity_contracts.base import Fault, Model, Positive
from kvparity_contracts.numerics import Numerics

_EXPECTED = "http://HOST:PORT or https://HOST:PORT"


class NamedServer(Model):
    """Which running server of vLLM or SGLang is asked over HTTP, and how."""

    TAG: ClassVar[str] = "server"

    kind: Literal["server"]
    """server: a running server, asked over HTTP by token ids."""
    api: Literal["vllm", "sglang"]
    """The API that it has; the server must say the same."""
    url: Annotated[str, Field(min_length=1)]
    """Its address, http://HOST:PORT. No other is spoken to, and redirects are refused."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The name of the served model; left out, the only one."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of the environment variable with the server's key, which is neither printed nor kept."""
    timeout: Annotated[float, Field(gt=0, le=86400)] = 120.0
    """Seconds that one answer may take."""

    def own_faults(self) -> Iterator[Fault]:
        """An address that is none, or that holds what reports must not keep."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            yield Fault(("url",), "found an address without a valid port", _EXPECTED)
            return
        if parts.username is not None or parts.password is not None:
            expected = "no name or password in it; key_variable names the key's variable"
            yield Fault(("url",), "found an address with a name or a password", expected)
        elif parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            yield Fault(("url",), f"found {self.url!r}", _EXPECTED)
        elif parts.query or parts.fragment:
            yield Fault(("url",), "found an address with a query or a fragment", _EXPECTED)


class ServerSubject(NamedServer):
    """A server as the subject."""

    draws: Literal["greedy", "sampled"] = "greedy"
    """greedy: the likeliest token each time; sampled: at the temperature, with the seed."""
    vocabulary: Positive
    """Size of the model's vocabulary, as its config.json has it: ids are below it."""


def numerics_faults(subject: ServerSubject, numerics: Numerics) -> Iterator[Fault]:
    """Formats and temperatures that one running server cannot have."""
    at = ("numerics",)
    if len(numerics.execution) > 1:
        found = f"found {len(numerics.execution)} formats, but the server computes in its own"
        yield Fault((*at, "execution"), found, "the one format that the server runs in")
    if numerics.kv_cache is not None:
        found = "found a cache format, but the server decides that"
        yield Fault((*at, "kv_cache"), found, "no kv_cache")
    if numerics.device is not None:
        found = f"found {numerics.device!r}, but the server computes on a device of its own"
        yield Fault((*at, "device"), found, "no device")
    if len(numerics.temperatures) > 1:
        found = "found several temperatures, but a server gives the logprob at one"
        yield Fault((*at, "temperatures"), found, "one temperature")
    elif subject.draws == "greedy" and numerics.temperatures != (1.0,):
        found = f"found the temperature {numerics.temperatures[0]:g} beside draws: greedy"
        yield Fault((*at, "temperatures"), found, "no temperatures, or draws: sampled")
