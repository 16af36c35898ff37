"""Instructions: the same products in the same order, added by other hardware.

Whole rows of logits show it in every token. Of a kernel pair most rows are equal all the same.
"""

from __future__ import annotations

from kvparity_contracts.controls.base import LANGUAGE, decodes

INSTRUCTIONS = (
    decodes(
        "other-instruction",
        "decode's products are those of another architecture's matrix instruction",
        "microsoft/onnxruntime#24027",
        subjects=LANGUAGE,
        features=("instruction",),
    ),
)
