"""Following what a message suggests leads to no error."""

from __future__ import annotations

import re
from pathlib import Path

import bad_cases
import pytest

from kvparity_contracts import ContractError, lint, load
from kvparity_contracts.problems import Problem

CASES = [each for each in bad_cases.cases() if "did you mean" in each.words]
GOOD = "".join(bad_cases.GOOD.values())


def problems(tmp_path: Path, text: str) -> tuple[Problem, ...]:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        load(file)
    except ContractError as error:
        return error.problems
    return ()


def followed(before: str, after: str, problem: Problem) -> str:
    """The text with what stands at the place replaced by the suggestion."""
    quote = after[0] if after[0] in "'\"" else ""
    end = after.index(quote, 1) + 1 if quote else _end(after)
    return before + problem.suggestion + after[end:]


def _end(text: str) -> int:
    ends = (i for i, each in enumerate(text) if each in ",:}]\n" and not text[i:].startswith(":f"))
    return next(ends)


@pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in CASES])
def test_a_suggestion_mends_what_it_is_given_for(case: bad_cases.Bad, tmp_path: Path) -> None:
    before, _, after = case.text.partition("§")
    (problem,) = problems(tmp_path, before + after)
    assert problem.suggestion
    for each in problems(tmp_path, followed(before, after, problem)):
        # What it brings to light (a relation that needs limits) is told at another key.
        assert each.key != problem.key
        assert problem.suggestion not in each.message


@pytest.mark.parametrize(
    "checks",
    [
        # Each word is near one that is an error here.
        "[{name: a, relation: invariance, paths: [decode, decod]}]",
        "[{name: a, relation: invariance, paths: [prefil, decode]}]",
        "[{name: a, relation: invariance, reference: generate, paths: [decode]}]",
        "[{name: a, relation: invariance, paths: [decode], path: [batched]}]",
        "[{name: a, relation: invariance, paths: [decode, chunkd(400)]}]",
    ],
)
def test_what_would_be_an_error_again_is_not_suggested(tmp_path: Path, checks: str) -> None:
    old = bad_cases.GOOD["checks"]
    (problem,) = problems(tmp_path, GOOD.replace(old, f"checks: {checks}\n"))
    assert problem.suggestion == ""


def test_what_a_suggestion_brings_to_light_does_not_keep_it_back(tmp_path: Path) -> None:
    old = bad_cases.GOOD["subject"]
    text = GOOD.replace(old, "subject: {kind: decodr, preset: tiny, checkpoint: x}\n")
    (problem,) = problems(tmp_path, text)
    assert problem.suggestion == "decoder"


@pytest.mark.parametrize("prompt", [70, 100, 200, 300, 1010])
def test_a_workload_that_a_warning_advises_ends_the_warning(tmp_path: Path, prompt: int) -> None:
    asked = re.compile(r"a prompt of (\d+) tokens that generates (\d+) would do")

    def advised(more: str) -> list[re.Match[str]]:
        old = bad_cases.GOOD["workloads"]
        text = f"workloads: [{{name: w, prompt_tokens: [{prompt}], generate: 8}}{more}]\n"
        file = tmp_path / "c.yaml"
        file.write_text(GOOD.replace(old, text), encoding="utf-8")
        return [m for each in lint(load(file)) if (m := asked.search(each.message))]

    (found,) = advised("")
    more = f", {{name: edge, prompt_tokens: [{found[1]}], generate: {found[2]}}}"
    assert advised(more) == []
