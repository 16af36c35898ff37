"""Servers over HTTP: bits as sent, and one sentence for each way in which they fail."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from server_stand_in import VOCABULARY, StandIn, logprobs_after, serving

from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.rollouts.anomalies import Anomaly
from kvparity.servers import metrics
from kvparity.servers.connect import connect
from kvparity.servers.http import ServerAddress, ServerError
from kvparity.servers.values import Draw

IDS = (3, 1, 4, 1, 5, VOCABULARY - 1, 9)
APIS = ("vllm", "sglang")


@pytest.mark.parametrize("api", APIS)
def test_scores_and_draws_have_the_bits_as_sent(api: str) -> None:
    with serving(StandIn(api)) as stand_in:
        server = connect(ServerAddress(stand_in.url))
        scored = server.score(IDS).logprobs
        drawn = server.generate(Draw(IDS[:3], 4, 1.0, seed=5))
        again = server.generate(Draw(IDS[:3], 4, 1.0, seed=5, top=5))
    assert server.facts.words().startswith(f"{api} 0.")
    assert scored.dtype == np.float32
    assert np.isnan(scored[0])
    assert scored[1:].tolist() == [logprobs_after(IDS[:at])[IDS[at]] for at in range(1, len(IDS))]
    text = [*IDS[:3], *drawn.ids.tolist()]
    assert drawn.logprobs.tolist() == [logprobs_after(text[:at])[text[at]] for at in range(3, 7)]
    assert again.ids.tolist() == drawn.ids.tolist()
    assert dict(again.top) == {
        at: logprobs_after(IDS[:3])[at] for at in np.argsort(-logprobs_after(IDS[:3]))[:5]
    }
    # SGLang's last id alone is reported as another, and counted.
    assert server.anomalies.counts[Anomaly.REPLACED_ID] == (api == "sglang")


def test_flags_are_shown_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sk-1")
    with serving(StandIn("sglang")) as stand_in:
        server = connect(ServerAddress(stand_in.url, "TOY_KEY"))
        server.score(IDS)
    assert stand_in.keys == ["Bearer sk-1"]
    assert server.facts.shown == {"dtype": "bfloat16", "tp_size": 1, "version": "0.5.23"}
    assert "sk-1" not in repr(server.at)


FAULTS = (
    ("vllm", "late", "no answer within 0.2 s"),
    ("vllm", "error", 'HTTP 500: {"error": "out of memory"}'),
    ("vllm", "unauthorised", "HTTP 401: it refuses the key (key_variable)"),
    ("vllm", "key-in-error", "HTTP 400: bad header Bearer (the key)"),
    ("vllm", "redirect", "/elsewhere: redirects are refused, only the given address is spoken to"),
    ("vllm", "dies", "the server closed the connection before its answer was complete; did it die"),
    ("vllm", "no-json", "the answer is no JSON"),
    ("vllm", "cut", "the answer was cut after "),
    ("vllm", "other-form", "answer: choices: Field required"),
    ("vllm", "other-ids", "prompt_logprobs[1] lists 1, and the prompt's token is 2"),
    ("vllm", "two-answers", "the answer holds 2 sequences, expected 1"),
    ("vllm", "null", "token 2 of the prompt has no logprob"),
    ("sglang", "other-form", "answer: output_ids: Field required"),
    ("sglang", "other-ids", "input_token_logprobs[1] is of token 2, and the request's is 1"),
    ("sglang", "two-zeros", "the answer is of other tokens: ids 1, 3, 4 are reported as 0, which"),
)


@pytest.mark.parametrize(
    ("api", "fault", "sentence"), FAULTS, ids=[f"{api}-{fault}" for api, fault, _ in FAULTS]
)
def test_each_failure_is_one_sentence(
    api: str, fault: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", "sk-1")
    with serving(StandIn(api, frozenset({fault}))) as stand_in:
        server = connect(ServerAddress(stand_in.url, "TOY_KEY", timeout=0.2))
        with pytest.raises(ServerError) as error:
            server.score(IDS)
    said = str(error.value)
    assert sentence in said
    assert said.startswith(f"POST {stand_in.url}/")
    assert "\n" not in said
    assert "sk-1" not in said
    assert "/elsewhere" not in stand_in.asked


def test_the_others_wait_until_the_first_are_seen_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    others = threading.Event()

    def running(_: ServerAddress) -> int:
        said.append(int(len(said) > 1))
        return int(len(said) > 2)

    def other() -> str:
        said.append("other")
        others.set()
        return "other"

    monkeypatch.setattr(metrics, "running", running)
    at = ServerAddress("http://host")
    answers, _ = metrics.together(at, [lambda: str(others.wait(5)), other], 1)
    assert answers == ["True", "other"]
    assert said[:4] == [0, 0, 1, "other"]


def test_an_answer_of_fewer_tokens_is_cut() -> None:
    with serving(StandIn(faults=frozenset({"short"}))) as stand_in:
        server = connect(ServerAddress(stand_in.url))
        with pytest.raises(ServerError, match="the answer was cut: 3 of 4 tokens"):
            server.generate(Draw(IDS, 4, 0.0, seed=1))


def test_what_is_no_server() -> None:
    with serving(StandIn("other")) as stand_in:
        at = ServerAddress(stand_in.url)
        with pytest.raises(ServerError, match="calls itself 'other'; expected vllm or sglang"):
            connect(at)
        stand_in.api = "vllm"
        with pytest.raises(ServerError, match="the server is vllm, and the contract says sglang"):
            connect(at, "sglang")
        with pytest.raises(ServerError, match="the server serves toy; and m was asked for"):
            connect(at, model="m")
    with pytest.raises(ServerError, match="connection refused; is the server running"):
        connect(at)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("file:///etc/passwd", "is no server's address"),
        ("http://", "is no server's address"),
        ("http://a:99999", "has no valid port"),
        ("http://user:secret@host", "holds a name or a password"),
        ("http://host/?a=1", "has more than a host and a path"),
    ],
)
def test_addresses_that_are_refused(url: str, sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=sentence) as error:
        ServerAddress(url)
    assert "secret" not in str(error.value)


def test_a_key_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_KEY", raising=False)
    with pytest.raises(UnsupportedError, match="TOY_KEY, which should hold the server's key, is"):
        ServerAddress("http://host", "TOY_KEY")
    monkeypatch.setenv("TOY_KEY", "a\nb: c")
    with pytest.raises(UnsupportedError, match="TOY_KEY holds no key"):
        ServerAddress("http://host", "TOY_KEY")


def _recorded(path: Path, stand_in: StandIn) -> str:
    server = connect(ServerAddress(stand_in.url))
    prompt = IDS[:3]
    drawn = server.generate(Draw(prompt, 4, 1.0, seed=5))
    answer = {
        "output_ids": drawn.ids.tolist(),
        "meta_info": {
            "output_token_logprobs": [
                [value, token, None]
                for value, token in zip(drawn.logprobs.tolist(), drawn.ids.tolist(), strict=True)
            ]
        },
    }
    path.write_text(json.dumps({"request": {"input_ids": prompt}, "response": answer}))
    return str(path)


@pytest.mark.parametrize("api", APIS)
def test_drift_against_a_server(
    api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(StandIn(api)) as stand_in:
        equal = _recorded(tmp_path / "equal.json", stand_in)
        assert main(["drift", equal, "--against", stand_in.url, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["metrics"]["tokens"] == 4
        assert found["trainer"]["name"] == stand_in.url
        assert found["trainer"]["layout"].startswith(api)
        stand_in.faults = frozenset({"alone-differs"})
        other = _recorded(tmp_path / "other.json", stand_in)
        assert main(["drift", other, "--against", stand_in.url]) == 1
        assert "3 of 4 tokens differ in bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "more", "code", "sentence"),
    [
        ("error", [], 3, "HTTP 500"),
        ("", ["--dtype", "float32"], 2, "--dtype: of a model; expected --against a checkpoint"),
        ("", ["--served", "m"], 3, "the server serves toy; and m was asked for"),
        ("", ["--key-variable", "NO_KEY"], 2, "NO_KEY, which should hold the server's key, is not"),
        ("", ["--timeout", "0"], 2, "timeout 0.0: expected seconds above 0"),
        ("", ["--against", "FILE", "--timeout", "1"], 2, "--timeout: of a server; expected"),
    ],
)
def test_drift_says_what_failed(
    fault: str,
    more: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(StandIn()) as stand_in:
        path = _recorded(tmp_path / "rollout.json", stand_in)
        stand_in.faults = frozenset({fault})
        named = [path if each == "FILE" else each for each in more]
        assert main(["drift", path, "--against", stand_in.url, *named]) == code
    err = capsys.readouterr().err.strip()
    assert sentence in err
    assert len(err.splitlines()) == 1
