"""A stand-in for a vLLM or SGLang server: a seeded toy model behind their APIs, on this machine.

Its logprobs are a pure function of the tokens, so that without a fault no path can differ. Faults
of the numbers: ``alone-differs`` (a step of one row is computed otherwise), ``cached-differs``,
``unsteady``. Faults of the answers: ``late``, ``cut``, ``error``, ``key-in-error``, ``redirect``,
``no-json``, ``other-form``, ``other-ids``, ``two-zeros``, ``short``, ``dies``, ``two-answers``,
``null``. Others: ``hides-batching`` (metrics say that one request runs), ``no-metrics``,
``hides-cache``, ``no-cache``, ``warm`` (what others left in it), ``cannot-empty``, ``one-by-one``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import numpy.typing as npt

VOCABULARY = 256
READS = 20
Row = npt.NDArray[np.float64]


def logprobs_after(ids: Sequence[int], temperature: float = 1.0) -> Row:
    """Log-probabilities ``[VOCABULARY]`` of what follows ``ids``; each is a float32."""
    logits = np.random.default_rng([7, len(ids), *ids]).normal(0, 2, VOCABULARY) / temperature
    return (logits - np.log(np.exp(logits).sum())).astype(np.float32).astype(np.float64)


@dataclass
class StandIn:
    """What the server is and did. ``keys``: the Authorization headers that it was sent."""

    api: str = "vllm"
    faults: frozenset[str] = frozenset()
    processed: bool = False
    answers_before_fault: int = 0
    holds: bool = False
    version: str = "0.32.0"
    running: int = 0
    busy: int = 0
    """Times that emptying its cache is refused yet."""
    most: int = 0
    """Since none ran."""
    reads: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    cache: list[tuple[int, ...]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def cached(self, prompt: Sequence[int]) -> int:
        """Tokens of the prompt that an earlier one had; the last is always computed."""
        if "no-cache" in self.faults:
            return 0
        found = len(prompt) // 2 if "warm" in self.faults else 0
        for each in self.cache:
            same = 0
            for mine, theirs in zip(prompt[:-1], each, strict=False):
                if mine != theirs:
                    break
                same += 1
            found = max(found, same)
        return found

    def draw(
        self, prompt: Sequence[int], count: int, temperature: float, seed: int
    ) -> tuple[list[int], list[float]]:
        """Tokens and their logprobs, as the API gives them."""
        ids, values = list(prompt), []
        for step in range(count):
            row = logprobs_after(ids)
            noise = np.random.default_rng([seed, step]).gumbel(size=VOCABULARY)
            token = int(np.argmax(row / temperature + noise if temperature else row))
            shown = logprobs_after(ids, temperature) if self.processed and temperature else row
            value = np.float32(shown[token])
            alone = "alone-differs" in self.faults and step and self.most == 1
            cached = "cached-differs" in self.faults and not step and self.cached(prompt)
            if alone or cached:
                value = np.nextafter(value, np.float32(-np.inf))
            if "unsteady" in self.faults:
                value -= np.float32(len(self.asked) / 8)
            ids.append(token)
            values.append(float(value))
        return ids[len(prompt) :], values


Body = Mapping[str, object]


def _vllm(server: StandIn, body: Body) -> Body:
    prompt: list[int] = list(body["prompt"])  # type: ignore[call-overload]
    count, temperature = int(str(body["max_tokens"])), float(str(body["temperature"]))
    cached = 0 if "prompt_logprobs" in body else server.cached(prompt)
    ids, values = server.draw(prompt, count, temperature, int(str(body.get("seed", 0))))
    first = logprobs_after(prompt, temperature if server.processed and temperature else 1.0)
    shown = {f"token_id:{at}": float(first[at]) for at in np.argsort(-first)[:5]}
    choice: dict[str, object] = {
        "index": 0,
        "token_ids": ids,
        "prompt_token_ids": prompt,
        "prompt_logprobs": None,
        "logprobs": None,
    }
    if body.get("logprobs") is not None:
        names = [f"token_id:{each}" for each in ids]
        top = [shown, *({name: value} for name, value in zip(names[1:], values[1:], strict=True))]
        choice["logprobs"] = {"tokens": names, "token_logprobs": values, "top_logprobs": top}
    if body.get("prompt_logprobs") is not None:
        choice["prompt_logprobs"] = [None] + [
            {str(prompt[at]): {"logprob": float(logprobs_after(prompt[:at])[prompt[at]])}}
            for at in range(1, len(prompt))
        ]
    details = None if "hides-cache" in server.faults else {"cached_tokens": cached}
    server.cache.append(tuple(prompt))
    return {"choices": [choice], "usage": {"prompt_tokens_details": details}}


def _sglang(server: StandIn, body: Body) -> Body:
    prompt: list[int] = list(body["input_ids"])  # type: ignore[call-overload]
    sampling: dict[str, float] = body["sampling_params"]  # type: ignore[assignment]
    temperature, cached = sampling["temperature"], server.cached(prompt)
    count = int(sampling["max_new_tokens"])
    ids, values = server.draw(prompt, count, temperature, int(sampling.get("sampling_seed", 0)))
    first = logprobs_after(prompt, temperature if server.processed and temperature else 1.0)
    shown = [[float(first[at]), int(at), None] for at in np.argsort(-first)[:5]]
    meta: dict[str, object] = {
        "output_token_logprobs": [[v, t, None] for v, t in zip(values, ids, strict=True)],
        "output_top_logprobs": [shown],
        "cached_tokens": cached,
    }
    if "logprob_start_len" in body:
        told = [0 if token == VOCABULARY - 1 else token for token in prompt]
        scored = [float(logprobs_after(prompt[:at])[prompt[at]]) for at in range(1, len(prompt))]
        meta["input_token_logprobs"] = [
            [value, token, None] for value, token in zip([None, *scored], told, strict=True)
        ]
        meta["cached_tokens"] = 0
    server.cache.append(tuple(prompt))
    return {"output_ids": ids, "meta_info": meta}


def _replaced(value: object, fault: str, api: str) -> object:
    """An answer with a fault in it."""
    found = json.loads(json.dumps(value))
    if api == "vllm":
        (choice,) = found["choices"]
        if fault == "other-ids":
            choice["prompt_token_ids"][1] += 1
        elif fault == "short":
            choice["token_ids"].pop()
            choice["logprobs"]["token_logprobs"].pop()
        elif fault == "two-answers":
            found["choices"] *= 2
        elif fault == "null" and choice["prompt_logprobs"]:
            choice["prompt_logprobs"][2] = None
    elif fault == "two-zeros":
        for each in found["meta_info"]["input_token_logprobs"]:
            each[1] = 0
    elif fault == "other-ids":
        found["meta_info"]["input_token_logprobs"][1][1] += 1
    return {"other": found} if fault == "other-form" else found


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    api_paths = ("/v1/completions", "/generate")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server = self.stand_in
        server.asked.append(self.path)
        shown = 1 if "hides-batching" in server.faults else server.running
        server.reads += [server.running] if self.path == "/metrics" else []
        name = "vllm:num_requests_running" if server.api == "vllm" else "sglang:num_running_reqs"
        if self.path == "/metrics" and "no-metrics" not in server.faults:
            self._send(f'# HELP {name} x\n{name}{{engine="0"}} {shown}.0\n'.encode())
        elif self.path == "/v1/models":
            self._json({"data": [{"id": "toy", "owned_by": server.api, "max_model_len": 512}]})
        elif self.path == "/version" and server.api == "vllm":
            self._json({"version": server.version})
        elif self.path == "/get_server_info" and server.api == "sglang":
            secret = {"api_key": "sk-1", "hf_token": "hf-1", "note": "the key is sk-1"}
            self._json({"version": "0.5.23", "dtype": "bfloat16", "tp_size": 1, **secret})
        else:
            self._send(b"Not Found", 404)

    def do_POST(self) -> None:
        server = self.stand_in
        server.asked.append(self.path)
        server.keys.append(self.headers["Authorization"])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path not in self.api_paths:
            emptying = self.path in ("/reset_prefix_cache", "/flush_cache")
            if emptying and server.busy:
                server.busy -= 1
                self._send(b"pending", 400)
            elif emptying and "cannot-empty" not in server.faults:
                server.cache.clear()
                self._send(b"ok")
            else:
                self._send(b"Not Found", 404)
            return
        with server.lock:
            server.running += 1
            server.most = max(server.most, server.running)
        try:
            if "one-by-one" in server.faults:
                with server.turn:
                    answer = self._answer(body)
            else:
                answer = self._answer(body)
        finally:
            with server.lock:
                server.running -= 1
                server.most = server.most if server.running else 0
        self._fail_or_send(answer)

    def _answer(self, body: Body) -> object:
        if self.stand_in.holds:
            self._meet(body)
        return (_vllm if self.stand_in.api == "vllm" else _sglang)(self.stand_in, body)

    def _meet(self, body: Body) -> None:
        """Hold a request that draws several tokens until the metrics were read ``READS`` times with
        nobody new, as a real one takes longer than others need to arrive."""
        scored = "prompt_logprobs" in body or "logprob_start_len" in body
        sampling = body.get("sampling_params", {})
        assert isinstance(sampling, dict)
        if scored or body.get("max_tokens", sampling.get("max_new_tokens")) == 1:
            return
        server, until = self.stand_in, time.monotonic() + 5
        start = len(server.reads)
        while time.monotonic() < until and "no-metrics" not in server.faults:
            last = server.reads[start:][-READS:]
            if len(last) == READS and set(last) == {server.running}:
                break
            time.sleep(0.001)

    def _fail_or_send(self, answer: object) -> None:
        server, key = self.stand_in, self.headers["Authorization"]
        asked = sum(path in self.api_paths for path in server.asked)
        faults = server.faults if asked > server.answers_before_fault else frozenset[str]()
        if "late" in faults:
            time.sleep(0.4)
        if "error" in faults:
            self._send(b'{"error":\n "out of memory"}', 500)
        elif "unauthorised" in faults:
            self._send(b"", 401)
        elif "key-in-error" in faults:
            self._send(f"bad header {key}".encode(), 400)
        elif "redirect" in faults:
            self._send(b"", 302, Location=f"{server.url}/elsewhere")
        elif "dies" in faults:
            self.close_connection = True
        elif "no-json" in faults:
            self._send(b"<html>")
        elif "cut" in faults:
            self._send(json.dumps(answer).encode()[:-5], length=5)
        else:
            for fault in faults:
                answer = _replaced(answer, fault, server.api)
            self._json(answer)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode())

    def _send(self, body: bytes, code: int = 200, length: int = 0, **headers: str) -> None:
        with suppress(ConnectionError):  # the client has gone
            self.send_response(code)
            self.send_header("Content-Length", str(len(body) + length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    """The server, listening on this machine."""
    handler = type("Handler", (_Handler,), {"stand_in": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
