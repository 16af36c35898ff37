"""Every compared token as a file, read back bit for bit; and the plots."""

from __future__ import annotations

import json
import sys
from errno import ENOSPC
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pyarrow.parquet import ParquetFile
from rollouts.recorded import LAYOUTS, SEQUENCES, vllm_rollout, written

from kvparity.cli.main import main
from kvparity.gaps.pictures import pictures
from kvparity.gaps.report import Source, report
from kvparity.rollouts import token_file
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.pairing import Matched
from kvparity.rollouts.record import RolloutError
from kvparity.rollouts.token_file import write_tokens
from kvparity.rollouts.tokens import ScoredSequence, Tokens

SIDE = Source("a.jsonl", "RolloutWriter")
PLOTS = {"position.svg", "logprob.svg", "histogram.svg", "map.svg"}


def _tokens(*lengths: int, scale: float = 1e-3) -> Tokens:
    made = np.random.default_rng(0)

    def one(name: int, n: int) -> ScoredSequence:
        rollout = -made.exponential(2, n).astype(np.float32)
        trainer = (rollout * (1 + scale * made.standard_normal(n))).astype(np.float32)
        at = np.arange(5, 5 + n, dtype=np.int32)
        return ScoredSequence(f"s{name % 3}", rollout, trainer, at, at * 7 - 36)

    return Tokens.of(one(name, n) for name, n in enumerate(lengths))


@pytest.mark.parametrize("lengths", [(), (1,), (3, 4, 1, 4), (9, 2, 5)])
def test_tokens_come_back(
    lengths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups cut sequences; names that stand twice, 0 with a sign and subnormals stay."""
    monkeypatch.setattr(token_file, "ROWS", 4)
    tokens, path = _tokens(*lengths), tmp_path / "tokens.parquet"
    odd = np.array([-0.0, -1e-45, -1.5], dtype=np.float32)[: tokens.count]
    tokens.rollout[: odd.size] = odd
    tokens.trainer[:1] = 0.0
    write_tokens(tokens, path)
    with ParquetFile(path) as file:
        assert file.num_row_groups == -(-tokens.count // 4)
        read = file.read()
    columns = {name: read[name].to_numpy() for name in read.column_names}
    names = [name for name, n in zip(tokens.names, lengths, strict=True) for _ in range(n)]
    assert read["sequence"].to_pylist() == names
    for name, wanted in (
        ("position", tokens.positions),
        ("token_id", tokens.token_ids),
        ("rollout", tokens.rollout),
        ("trainer", tokens.trainer),
        ("d", tokens.d),
        ("equal_bits", tokens.equal),
    ):
        assert columns[name].dtype == wanted.dtype
        assert columns[name].tobytes() == wanted.tobytes(), name
    assert list(columns) == [
        "sequence",
        "position",
        "token_id",
        "rollout",
        "trainer",
        "d",
        "equal_bits",
    ]
    before = path.read_bytes()
    with pytest.raises(RolloutError, match=r"tokens.parquet exists; expected a new file"):
        write_tokens(tokens, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "tokens", [_tokens(40, 900, 17), _tokens(5, scale=0.0), _tokens(1), _tokens(*[3] * 130)]
)
def test_plots(tokens: Tokens) -> None:
    """Each holds what it is of; matplotlib warns of nothing."""
    found = report(tokens, Matched(), Anomalies(), rollout=SIDE, trainer=SIDE, limits={})
    drawn = dict(pictures(tokens))
    assert set(drawn) == PLOTS
    said = {
        name: "".join(ElementTree.fromstring(text).itertext()).replace("−", "-")
        for name, text in drawn.items()
    }
    assert not any("mathdefault" in text for text in said.values()), "no mark-up is left over"
    for name, bins in (("position.svg", found.by_position), ("logprob.svg", found.by_logprob)):
        for each in bins:
            assert f"{each.low:g} to {each.high:g}" in said[name]
            assert f"{each.tokens} tokens" in said[name]
    zeros = int((tokens.d == 0).sum())
    assert f"{tokens.count} tokens; {zeros} of them have d = 0" in said["histogram.svg"]
    rows = min(120, len(tokens.names))
    assert f"{rows} of {len(tokens.names)} sequences" in said["map.svg"]


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    file, plots = tmp_path / "tokens.parquet", tmp_path / "new" / "plots"
    command = ["drift", shard, "--tokens", str(file), "--plots", str(plots)]
    assert main([*command, "--json"]) == 1
    count = json.loads(capsys.readouterr().out)["metrics"]["tokens"]
    with ParquetFile(file) as found:
        assert found.metadata.num_rows == count
    assert {each.name for each in plots.iterdir()} == PLOTS


REFUSED = {
    "tokens over the recording": (["--tokens", "SHARD"], "shard.json is the recording itself"),
    "a page over the recording": (["--html", "SHARD"], "shard.json is the recording itself"),
    "tokens over a file": (["--tokens", "OTHER"], "other.txt exists; expected a new file"),
    "a page over a file": (["--html", "OTHER"], "other.txt exists and is no HTML page"),
    "a page over a folder": (["--html", "DIR"], "exists and is no HTML page"),
    "plots in a file": (["--plots", "OTHER"], "other.txt is a file; expected a folder"),
    "tokens in no folder": (["--tokens", "DIR/no/t.parquet"], "there is no folder "),
    "a page in no folder": (["--html", "DIR/no/p.html"], "there is no folder "),
    "tokens of another format": (
        ["--tokens", "DIR/t.csv"],
        "expected a name that ends in .parquet",
    ),
    "one file for two": (["--html", "DIR/x", "--tokens", "DIR/no/../x"], "x is --html; expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_is_refused_first(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more, message = REFUSED[case]
    monkeypatch.setattr("kvparity.gaps.sides.recordings", None)  # nothing is computed
    shard = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    other = tmp_path / "other.txt"
    other.write_text("mine")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    places = {"SHARD": shard, "OTHER": str(other)}
    given = [places.get(it, it.replace("DIR", str(tmp_path))) for it in more]
    assert main(["drift", shard, *given]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err
    assert len(err.splitlines()) == 1
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("more", "gone", "message"),
    [
        ("--tokens", "pyarrow.parquet", "--tokens: pyarrow is not installed"),
        ("--plots", "matplotlib.figure", 'pip install "kvparity[report]"'),
    ],
)
def test_what_is_not_installed(
    more: str,
    gone: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shard = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    monkeypatch.setitem(sys.modules, gone, None)
    assert main(["drift", shard, more, str(tmp_path / "new")]) == 3
    assert message in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["shard.json"]


def test_what_fails_at_last_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is said and the other files are made."""
    shard = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    file = tmp_path / "t"

    def full(path: Path, text: str, encoding: str) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    given = ["--html", str(tmp_path / "p.html"), "--tokens", str(file)]
    assert main(["drift", shard, *given, "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["verdict"] == "differs"
    assert "p.html cannot be written: No space left on device" in said.err
    with ParquetFile(file) as found:
        assert found.metadata.num_rows == 7


def test_no_token_no_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = (
        str(written([vllm_rollout(each)], tmp_path / f"{name}.json"))
        for name, each in (("left", SEQUENCES[0]), ("right", SEQUENCES[1]))
    )
    plots, page = tmp_path / "plots", tmp_path / "page.html"
    given = ["--plots", str(plots), "--html", str(page), "--json"]
    assert main(["drift", left, "--against", right, *given]) == 5
    said = capsys.readouterr()
    assert json.loads(said.out)["reason"] == "no token is compared"
    assert f"--plots {plots}: no token is compared, so nothing is drawn" in said.err
    assert not plots.exists()
    assert page.exists()
