"""ci/constraints.txt pins all that is needed, on every Python; the check of an environment."""

import sys
from pathlib import Path

import pins
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
CONSTRAINTS = (ROOT / "ci/constraints.txt").read_text(encoding="utf-8")
TABLES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = TABLES["project"]
EXTRAS = ("demo", "dev", "docs", "history", "peft", "ray", "report", "rollouts", "transformers")
DIRECT = [
    text
    for texts in (
        PROJECT["dependencies"],
        TABLES["build-system"]["requires"],
        *(PROJECT["optional-dependencies"][extra] for extra in EXTRAS),
    )
    for text in texts
    if Requirement(text).name != PROJECT["name"]
]


def unpinned(pinned, python):
    """What is needed and not pinned, as far as those installed releases say that are pinned there.

    Another release (an older transformers, say) has other requirements, which nobody promised to
    pin: what it needs is not looked at. ci/setup.sh looks at an environment of pinned ones.
    """
    versions = pins.read(CONSTRAINTS, pins.on(python))

    def further(name, version):
        return not pins.findings(versions, [(name, version)])

    return {n for n, _ in pins.reached(DIRECT, pins.on(python), further=further)} - set(pinned)


@pytest.mark.parametrize("python", PYTHONS)
def test_everything_that_is_needed_is_pinned(python):
    assert unpinned(pins.read(CONSTRAINTS, pins.on(python)), python) == set()


@pytest.mark.parametrize("left_out", ["pytest", "pluggy", "sympy", "hatchling"])
def test_a_pin_that_is_left_out_is_seen(left_out):
    """``pluggy`` and ``sympy`` are needed by what the project needs."""
    pinned = pins.read(CONSTRAINTS, pins.on("3.11"))
    assert unpinned({k: v for k, v in pinned.items() if k != left_out}, "3.11") == {left_out}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_are_within_what_the_project_asks_for(python):
    pinned = pins.read(CONSTRAINTS, pins.on(python))
    for text in DIRECT:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(dict(pins.on(python))):
            assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), text


def test_the_extra_of_what_is_tested_is_pinned_and_no_other_is_forgotten():
    """FlashInfer needs a GPU; whoever adds an extra decides whether it is pinned."""
    assert set(PROJECT["optional-dependencies"]) == {*EXTRAS, "flashinfer"}


def test_a_pin_holds_where_its_marker_does():
    text = "x==1 ; python_full_version < '3.11'\nx==2 ; python_full_version >= '3.11'  # why\n\n#\n"
    assert [pins.read(text, pins.on(python)) for python in ("3.10", "3.13")] == [
        {"x": "1"},
        {"x": "2"},
    ]


@pytest.mark.parametrize("line", ["x", "x>=1", "x==1.*", "x>1,==2"])
def test_a_line_that_leaves_a_choice_is_refused(line):
    with pytest.raises(ValueError, match="does not pin one version"):
        pins.read(line, pins.on("3.11"))


def test_a_name_that_is_pinned_twice_is_refused():
    with pytest.raises(ValueError, match="ruamel-yaml is pinned twice: 1, 2"):
        pins.read("ruamel.yaml==1\nruamel-yaml==2", pins.on("3.11"))


WORLD = {
    "top": ("1", ['part[fast]>=1; extra == "dev"', 'other; python_version < "3.11"', "base"]),
    "part": ("2+cpu", ['quick; extra == "fast"', 'slow; extra == "thorough"']),
    "base": ("3", ["top"]),
    "quick": ("4", []),
}


def reached(requirement, python="3.11"):
    return dict(pins.reached([requirement], pins.on(python), look=WORLD.get))


def test_the_walk_follows_extras_and_markers_and_ends():
    assert reached("top") == {"top": "1", "base": "3"}
    assert reached("top[dev]") == {"top": "1", "base": "3", "part": "2+cpu", "quick": "4"}
    assert reached("top", "3.10") == {"top": "1", "base": "3", "other": None}


def test_each_way_of_not_being_as_pinned_is_a_line():
    pinned = {"top": "1", "part": "2", "base": "3.1", "other": "5"}
    assert pins.findings(pinned, [*reached("top[dev]", "3.10").items()]) == [
        "base 3 is installed; 3.1 is pinned",
        "other is needed and not installed; 5 is pinned",
        "quick is needed and has no pin on this Python",
    ]


def test_the_check_of_an_environment_fails_with_its_lines(tmp_path, capsys):
    world = {"kvparity": ("0", ['top; extra == "dev"']), "top": ("1", [])}
    path = tmp_path / "constraints.txt"
    path.write_text("top==1\n", encoding="utf-8")
    assert pins.main([str(path), "dev"], world.get) == 0
    path.write_text("top==2\n", encoding="utf-8")
    assert pins.main([str(path), "transformers"], world.get) == 0, "it needs the extras named only"
    assert pins.main([str(path), "dev"], world.get) == 1
    assert "pins: top 1 is installed; 2 is pinned" in capsys.readouterr().err
