"""Jobs and the action that people copy: steps are run, and commands are commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml
from ruamel.yaml import YAML

from kvparity.cli.main import parser

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "ci/action/action.yml"
WORKFLOWS = sorted((ROOT / "ci/workflows").glob("*.yml"))
PAGE = (ROOT / "docs/ci.md").read_text()
PAIR = ROOT / "tests/harness/data/pairs.py"
CONTRACT = """\
version: 1
name: pair
subject: {{kind: attention, prefill: "{pair}:prefill", decode: "{pair}:decode",
  heads: {{query: 2, kv: 1, dim: 4}}}}
numerics: {{execution: float32}}
workloads: [{{name: short, prompt_tokens: [2], generate: 2}}]
checks:
  - {{name: right, relation: accuracy, limits: {{max_abs: {limit}}}}}
controls: [wrong-input]
"""


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def run(step: dict[str, Any], given: dict[str, str], folder: Path, python: str) -> tuple[int, str]:
    """A step of the action as GitHub runs it, its inputs filled in."""
    inputs = {
        name: str(each.get("default")) for name, each in read(ACTION.read_text())["inputs"].items()
    }
    inputs |= given
    filled = {
        name: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: inputs[found[1]], text)
        for name, text in step["env"].items()
    }
    assert "${{" not in step["run"] + "".join(filled.values()), "of a script it could end a command"
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/python").write_text(f"#!/bin/bash\n{python}\n")
    (folder / "bin/python").chmod(0o755)
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={**os.environ, **filled, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
             "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(folder / "output"),
             "GITHUB_WORKSPACE": str(folder), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def steps() -> dict[str, dict[str, Any]]:
    every = read(ACTION.read_text())["runs"]["steps"]
    return {step["id"]: step for step in every if "id" in step}


@pytest.mark.parametrize(
    ("limit", "code", "verdict", "said"),
    [
        ("[]", 2, "error", "::error title=kvparity,file=my pair.yaml,line="),
        pytest.param(
            1e-30, 1, "differs",
            "::error title=kvparity pair%3A DIFFERS,file=my pair.yaml,line=",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_the_action_leaves_its_verdict_and_its_files(
    limit: object, code: int, verdict: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "my pair.yaml").write_text(CONTRACT.format(pair=PAIR, limit=limit))
    given = {"contract": "my pair.yaml", "arguments": "--jobs\n1\n"}
    ended, printed = run(steps()["verify"], given, tmp_path, f'exec {sys.executable} "$@"')
    assert said in printed
    assert (ended, (tmp_path / "output").read_text()) == (code, f"verdict={verdict}\n")
    xml = JUnitXml.fromfile(str(tmp_path / "kvparity.xml"))
    assert (bool(xml.failures), bool(xml.errors)) == (verdict == "differs", verdict == "error")
    assert (tmp_path / "summary.md").is_file() == (verdict == "differs")
    assert (tmp_path / "kvparity-run/run.json").is_file() == (verdict == "differs")


@pytest.mark.parametrize(
    ("code", "verdict"), [(0, "holds"), (1, "differs"), (2, "error"), (3, "error"), (5, "void")]
)
def test_the_action_passes_everything_on_and_ends_as_its_command(
    code: int, verdict: str, tmp_path: Path
) -> None:
    given = {"contract": "$(id) `id`", "arguments": "--timeout\n5 s; exit 0\n\n", "device": "cuda"}
    ended, said = run(steps()["verify"], given, tmp_path, f'printf "%s\\n" "$@"; exit {code}')
    assert ended == code
    assert said.splitlines() == [
        "-m", "kvparity", "verify", "$(id) `id`", "--device", "cuda", "--run-dir", "kvparity-run",
        "--junit", "kvparity.xml", "--timeout", "5 s; exit 0",
    ]  # fmt: skip
    assert (tmp_path / "output").read_text() == f"verdict={verdict}\n"


def test_the_action_installs_what_is_named(tmp_path: Path) -> None:
    _, said = run(
        steps()["install"], {"install": "./a b\nc[d]>=1"}, tmp_path, 'printf "%s\\n" "$@"'
    )
    assert said.splitlines()[-2:] == ["./a b", "c[d]>=1"]


def test_the_action_uploads_what_it_made_whatever_the_verdict() -> None:
    last = read(ACTION.read_text())["runs"]["steps"][-1]
    assert last["if"] == "always()"
    assert last["uses"].startswith("actions/upload-artifact@v")
    assert last["with"]["path"].split() == [
        *("${{", "inputs.run-dir", "}}"), *("${{", "inputs.junit", "}}")
    ]  # fmt: skip


def understood(command: str) -> str | None:
    """The verb of a command line of kvparity, or None of any other command."""
    words = shlex.split(command)
    if words[0] != "kvparity":
        return None
    return str(parser().parse_args(words[1:]).run.__module__)


@pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_a_job_is_bounded_and_its_commands_are_commands(path: Path) -> None:
    job = read(path.read_text())
    assert job["permissions"] == {"contents": "read"}
    inputs = read(ACTION.read_text())["inputs"]
    for each in job["jobs"].values():
        assert each["timeout-minutes"] <= 120
        for step in each["steps"]:
            if step.get("uses") == "./.github/actions/kvparity":
                assert set(step["with"]) <= set(inputs)
                assert "contract" in step["with"]
            elif "run" in step:
                found = understood(step["run"])
                assert (
                    found
                    or (ROOT / step["run"].split()[0]).is_file()
                    or "kvparity" not in (step["run"].split()[0])
                )


def test_a_gate_verifies_and_a_gpu_job_never_falls_back() -> None:
    gate, smoke = (
        (ROOT / f"ci/workflows/{each}.yml").read_text() for each in ("cpu-gate", "gpu-smoke")
    )
    assert "kvparity contract lint --strict" in gate
    assert read(smoke)["jobs"]["smoke"]["env"] == {"KVPARITY_DEVICE": "cuda"}
    assert "pull_request" not in smoke.partition("jobs:")[0].partition("on:")[2]


def test_the_commands_and_words_of_the_page() -> None:
    (gitlab,) = [
        each for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "image" in each
    ]
    lines = read(gitlab)["parity"]["script"]
    assert [understood(each) for each in lines[1:]] == [
        "kvparity.cli.contract",
        "kvparity.cli.verify",
    ]
    assert set(read(gitlab)["parity"]["artifacts"]["paths"]) <= set(lines[-1].split())
    (action,) = [
        each for each in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "uses" in each
    ]
    assert set(read(action)[0]["with"]) <= set(read(ACTION.read_text())["inputs"])
    from kvparity.cli.ci_files import UNFINISHED

    assert f"`{UNFINISHED}`" in PAGE


@pytest.mark.parametrize("script", ["pythons", "newest.py"])
def test_tests_that_a_script_names_are_there(script: str) -> None:
    named = re.findall(r"tests/[\w/]+\*?\.py", (ROOT / "ci" / script).read_text())
    assert named
    assert [each for each in named if not list(ROOT.glob(each))] == []
