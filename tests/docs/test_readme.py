"""What the README shows of a third-party model is what that command prints."""

from __future__ import annotations

from pages import ROOT
from shell import missing

COMMAND = "$ kvparity verify transformers-qwen3-sdpa"


def shown() -> list[str]:
    """The block behind the command, without its fence."""
    _, _, after = (ROOT / "README.md").read_text().partition(COMMAND)
    block = after.split("```text\n", 1)[1]
    return block.split("\n```", 1)[0].splitlines()


def test_the_third_party_model_prints_what_is_shown(third_party):
    page = shown()
    code = int((third_party / "code").read_text())
    printed = (third_party / "out").read_text().splitlines()
    name = page[0].partition(":")[0]
    word = {0: "HOLDS", 1: "DIFFERS"}[code]
    assert printed[0].startswith(f"{name}: {word}  (")
    # Weights are drawn from the seed: their number and fingerprint are those of any machine.
    weights = [line for line in page if line.startswith("  weights: ")]
    assert weights == [line for line in printed if line.startswith("  weights: ")]
    if page[0].startswith(f"{name}: {word}"):  # else bits are equal here, and less is said
        folders = [line for line in page if ".kvparity/runs" in line]
        assert len(folders) == 3  # where the run lies is the machine's, too
        assert missing([line for line in page if line not in folders], printed) is None


def test_a_line_that_is_shown_and_not_printed_is_seen():
    page = shown()
    assert missing(page, page) is None
    assert missing([*page[:4], "    decode     1/192 off", *page[4:]], page) is not None
