"""HTTP to one given server, with the standard library: no redirect, no proxy, no other host.

Every failure is one :class:`ServerError` sentence that names the method and the address. A key
comes from an environment variable, is sent as a bearer token, and is in no message.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, NoReturn
from urllib.parse import urlsplit

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity_contracts.json_types import JsonObject, JsonValue

MOST_BYTES = 2**28
"""Of one answer."""
_BLOCK = 2**16
_MOST_TOLD = 200
"""Characters of an error's body."""


class ServerError(SubjectError):
    """A server that does not answer as it must, in one sentence. Exit code 3.

    ``status``: of the HTTP error that it answered, or 0.
    """

    status: int = 0


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is. ``timeout``: seconds that one answer may take as a whole.
    ``key_variable``: the environment variable that holds its key, where it wants one.

    Raises:
        UnsupportedError: the address is no plain http address, or the variable is not set.
    """

    url: str
    key_variable: str | None = None
    timeout: float = 120.0

    def __post_init__(self) -> None:
        """Refuse what is no address; nothing is asked yet."""
        expected = "expected http://HOST:PORT or https://HOST:PORT"
        try:
            parts = urlsplit(self.url)
            number = parts.port
        except ValueError:
            raise UnsupportedError(f"the server's address has no valid port: {expected}") from None
        if parts.username is not None or parts.password is not None:
            raise UnsupportedError(
                "the server's address holds a name or a password, which reports would keep: name "
                "an environment variable with the key"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname or number == 0:
            raise UnsupportedError(f"{self.url} is no server's address: {expected}")
        if parts.query or parts.fragment:
            raise UnsupportedError(f"{self.url} has more than a host and a path: {expected}")
        if not 0 < self.timeout < float("inf"):
            raise UnsupportedError(f"timeout {self.timeout}: expected seconds above 0")
        self.key()

    def key(self) -> str | None:
        """The key, read anew each time: it is kept nowhere."""
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable)
        if not key:
            raise UnsupportedError(
                f"the environment variable {self.key_variable}, which should hold the server's "
                "key, is not set"
            )
        if not key.isascii() or not key.isprintable():
            raise UnsupportedError(
                f"the environment variable {self.key_variable} holds no key: expected printable "
                "ASCII without line ends"
            )
        return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect stays the HTTP error that it is."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """No request follows."""
        return


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def get(at: ServerAddress, path: str) -> JsonValue:
    """The JSON that ``GET path`` answers.

    Raises:
        ServerError: no answer, or none that is JSON.
    """
    return _json(f"GET {at.url}{path}", text(at, path))


def post(at: ServerAddress, path: str, body: JsonObject) -> JsonValue:
    """The JSON that ``POST path`` answers to ``body``.

    Raises:
        ServerError: no answer, or none that is JSON.
    """
    return _json(f"POST {at.url}{path}", _asked(at, path, json.dumps(body).encode()))


def text(at: ServerAddress, path: str) -> bytes:
    """What ``GET path`` answers.

    Raises:
        ServerError: no whole answer.
    """
    return _asked(at, path, None)


def command(at: ServerAddress, path: str) -> bool:
    """``POST path`` without a body, whatever it answers; False where the server has no such path.

    Raises:
        ServerError: it refuses, or does not answer.
    """
    try:
        _asked(at, path, b"")
    except ServerError as error:
        if error.status in (404, 405):
            return False
        raise
    return True


def _json(what: str, found: bytes) -> JsonValue:
    try:
        value: JsonValue = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{what}: the answer is no JSON ({str(error)[:80]})") from None
    return value


def _asked(at: ServerAddress, path: str, body: bytes | None) -> bytes:
    what = f"{'GET' if body is None else 'POST'} {at.url}{path}"
    headers = {"Accept": "*/*", "User-Agent": "kvparity"}
    key = at.key()
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(at.url.rstrip("/") + path, body, headers)
    until = time.monotonic() + at.timeout
    try:
        with _OPENER.open(request, timeout=at.timeout) as answer:
            return _whole(what, answer, answer.headers.get("Content-Length"), until, at.timeout)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            _refused(what, error, key)
    except (OSError, HTTPException) as error:
        raise ServerError(f"{what}: {_broken(error, at.timeout)}") from None


def _whole(what: str, answer: IO[bytes], length: str | None, until: float, limit: float) -> bytes:
    """Read in blocks: a server that sends a byte a second must not hold a run for ever."""
    found = bytearray()
    while block := answer.read(_BLOCK):
        found += block
        if len(found) > MOST_BYTES:
            raise ServerError(f"{what}: the answer is longer than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise ServerError(f"{what}: the answer was not complete within {limit:g} s")
    if length is not None and length.isdigit() and len(found) < int(length):
        raise ServerError(f"{what}: the answer was cut after {len(found)} of {length} bytes")
    return bytes(found)


def _refused(what: str, error: urllib.error.HTTPError, key: str | None) -> NoReturn:
    if 300 <= error.code < 400:
        to = error.headers.get("Location") or "nowhere"
        raise ServerError(
            f"{what}: HTTP {error.code} to {to[:_MOST_TOLD]}: redirects are refused, only the "
            "given address is spoken to"
        ) from None
    if error.code in (401, 403):
        wanted = "it wants a key" if key is None else "it refuses the key"
        raise ServerError(f"{what}: HTTP {error.code}: {wanted} (key_variable)") from None
    try:
        body = error.read(_MOST_TOLD * 4).decode(errors="replace")
    except (OSError, HTTPException):
        body = ""
    if key is not None:
        body = body.replace(key, "(the key)")
    said = " ".join(body.split())[:_MOST_TOLD]
    found = ServerError(f"{what}: HTTP {error.code}" + (f": {said}" if said else ""))
    found.status = error.code
    raise found from None


def _broken(error: Exception, timeout: float) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused; is the server running?"
    if isinstance(reason, (ConnectionError, HTTPException)):
        return "the server closed the connection before its answer was complete; did it die?"
    return f"no connection ({reason})"
