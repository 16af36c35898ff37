"""What CI systems are given: JUnit, annotations, a summary and a badge, and what each says of which
word of a report."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from junitparser import JUnitXml
from pair_contracts import write
from run_documents import DIVERGENCE, case, control, whole_report

from kvparity.report.badge import badge
from kvparity.report.document import RunReport
from kvparity.report.github import MOST, annotation, of_problems, of_report
from kvparity.report.junit import junit, unfinished
from kvparity.report.summary import LARGEST, SMALLEST, escaped, summary
from kvparity_contracts.loader import LoadedContract, load
from kvparity_contracts.problems import Problem

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "a%:,]]>|`<b>&\x1b[31m\n::error::\ud800"
DIFFERS = {
    "verdict": "differs", "reason": "bits differ", "differing_tokens": 2, "differing_rows": 2,
    "first_divergence": DIVERGENCE,
}  # fmt: skip
VOID = {"verdict": "void", "reason": "nothing was compared", "tokens": 0}
UNPLANTED = {"control": "x", "relation": "invariance", "reason": "no window"}
ENDS = {
    "holds": ("holds", [case()], {}, "passed"),
    "differs": ("differs", [case(), case(id="c001", **DIFFERS)], {}, "failure"),
    "void": ("void", [case(), case(id="c001", **VOID)], {}, "error"),
    "error": ("error", [case(id="c001", **(VOID | {"verdict": "error"}))], {}, "error"),
    "void without a case that is": ("void", [case()], {}, "error"),
    "a missed control": (
        "void", [case()], {"controls": [control(caught=False, seen="holds: equal")]}, "failure",
    ),
    "a control that was asked for": (
        "void", [case()], {"unplanted": [UNPLANTED | {"asked": True}]}, "error",
    ),
    "a control that cannot show": (
        "holds", [case()], {"unplanted": [UNPLANTED | {"asked": False}]}, "skipped",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedContract:
    return load(write(tmp_path_factory.mktemp("contract")))


def reported(end: str) -> RunReport:
    verdict, cases, changes, _ = ENDS[end]
    return whole_report(verdict, *cases, **changes)


@pytest.mark.parametrize("end", ENDS)
def test_a_file_of_junit_is_green_only_where_the_contract_holds(
    end: str, loaded: LoadedContract
) -> None:
    report, worst = reported(end), ENDS[end][-1]
    xml = JUnitXml.fromstring(junit(report, loaded).encode())
    kinds = [
        result.__class__.__name__.lower()
        for suite in xml for test in suite for result in test.result
    ]  # fmt: skip
    tests = [test.name for suite in xml for test in suite]
    counted = len(report.checks[0].cases) + len(report.controls) + len(report.unplanted)
    assert len(tests) == counted + 2, "and a verdict of the check, and of the contract"
    assert tests[0].startswith("c00")
    assert tests[-1] == "verdict"
    assert worst in (kinds or ["passed"])
    assert bool(xml.failures + xml.errors) == (report.verdict != "holds")
    assert xml.skipped == (worst == "skipped")
    assert {test.classname for suite in xml for test in suite} >= {"smoke", "smoke.controls"}
    row, _ = loaded.place(("checks", 0, "paths", 0))
    assert f'line="{row}"' in junit(report, loaded)


def test_junit_says_where_and_how_to_look_closer(loaded: LoadedContract) -> None:
    text = junit(reported("differs"), loaded)
    assert 'type="differs"' in text
    assert "sequence long/0, position 257" in text
    assert "kvparity replay .kvparity/runs/x c001" in text
    assert f'file="{loaded.file}"' in text
    assert '<property name="torch" value="2.9.0"' in text


def test_nothing_foreign_breaks_what_is_written(loaded: LoadedContract) -> None:
    """Names and messages may hold anything: each file is still of its kind, with one test each."""
    report = whole_report("differs", case(**(DIFFERS | {"reason": EVIL})))
    check = report.checks[0].model_copy(update={"name": EVIL, "reason": EVIL})
    evil = report.model_copy(update={"checks": (check,)})
    assert len(ET.fromstring(junit(evil, loaded)).findall(".//testcase")) == 4
    assert ET.fromstring(unfinished(EVIL, EVIL)).find(".//error") is not None
    title = ET.fromstring(badge(EVIL, "void")).find(f"{SVG}title")
    assert title is not None
    assert str(title.text).endswith(": void")
    assert len(badge("x" * 10_000, "holds")) < 1500
    for line in of_report(evil, loaded, loaded.path.parent):
        assert re.fullmatch(r"::error (\w+=[^:,\r\n]*,?)+::[^\r\n]*", line), line
    rows = [line for line in summary(evil).splitlines() if line.startswith("| DIFFERS")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 6
    assert "<b>" not in summary(evil)
    assert "::error::" not in [line.strip() for line in summary(evil).splitlines()]


@pytest.mark.parametrize(
    ("title", "message", "line"),
    [
        ("a:b,c%d", "e:f,g%h\ni\rj", "::error title=a%3Ab%2Cc%25d::e:f,g%25h%0Ai\\rj"),
        ("a\r\nb", "", "::error title=a b::"),
    ],
)
def test_a_workflow_command_is_escaped_as_its_reader_unescapes_it(
    title: str, message: str, line: str
) -> None:
    assert annotation(title, message, None, 0) == line


def test_an_annotation_stands_on_the_line_of_the_contract(loaded: LoadedContract) -> None:
    folder = loaded.path.parent
    (line,) = of_report(reported("differs"), loaded, folder)
    row, _ = loaded.place(("checks", 0, "paths", 0))
    assert f"file=pair.yaml,line={row}::" in line
    assert "c001 decode over long, bfloat16, temperature 0.7: bits differ%0A" in line
    assert "file=" not in of_report(reported("differs"), loaded, folder / "elsewhere")[0]
    (void,) = of_report(reported("void without a case that is"), loaded, folder)
    assert "decode reduces like prefill: verdict" in void
    missed = of_report(reported("a missed control"), loaded, folder)
    (row, _), text = loaded.place(("controls", 0)), loaded.path.read_text()
    assert "stale-slot" in text.splitlines()[row - 1]
    assert any(f"line={row}::" in each and "MISSED" in each for each in missed)
    assert of_report(reported("holds"), loaded, folder) == []
    assert of_report(reported("a control that cannot show"), loaded, folder) == []


def test_annotations_are_grouped_and_counted(loaded: LoadedContract) -> None:
    alike = [case(id=f"c{number:03}", **DIFFERS) for number in range(30)]
    (line,) = of_report(whole_report("differs", *alike), loaded, Path())
    assert line.endswith("%0Aand 29 more like it")
    many = [Problem("x.yaml", number, 2, "", f"fault {number}") for number in range(1, 15)]
    found = of_problems(many, Path())
    assert len(found) == MOST == 10
    assert found[0] == "::error title=kvparity,file=x.yaml,line=1,col=2::x.yaml:1:2: fault 1"
    assert found[-1].endswith("::and 5 more; the log and the job summary have all")
    assert len(of_problems(many[:MOST], Path())) == MOST


def test_a_summary_fits(loaded: LoadedContract) -> None:
    report = reported("differs")
    small = summary(report)
    assert small.startswith("### kvparity: smoke: DIFFERS\n")
    assert "| DIFFERS | decode reduces like prefill | invariance | 2 | " in small
    assert small.count("<pre>") == small.count("</pre>") == 1
    long = report.checks[0].model_copy(update={"reason": "x" * 500})
    many = report.model_copy(update={"checks": (long,) * 2500})
    for room in (LARGEST, 100_000, SMALLEST):
        text = summary(many, room)
        assert room - 5000 < len(text.encode()) <= room
        assert " lines more" in text
        assert text.count("<pre>") == text.count("</pre>")
    with pytest.raises(ValueError, match="4095 bytes are left of the 1048576"):
        summary(report, SMALLEST - 1)


def test_what_markdown_reads_as_its_own_is_escaped() -> None:
    assert escaped("a|b *c* `d` [e](f) <g> &") == (r"a\|b \*c\* \`d\` \[e\]\(f\) &lt;g&gt; &amp;")


@pytest.mark.parametrize("verdict", ["holds", "differs", "void", "error"])
def test_a_badge_shows_the_verdict_in_its_colour(verdict: str) -> None:
    words = {w: badge("smoke", w) for w in ("holds", "differs", "void", "error")}  # type: ignore[arg-type]
    texts = [each.text for each in ET.fromstring(words[verdict]).iter(f"{SVG}text")]
    assert texts == ["smoke", verdict]
    assert ("#1a7f37" in words[verdict]) == (verdict == "holds")
