"""Instructions: the same products in the same order, added by other hardware.

Rows of logits in float32 show it in every token. Rounded to 16 bits, as a kernel pair's output and
the logits of most models are, hardly any row does.
"""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODER, decodes

INSTRUCTIONS = (
    decodes(
        "other-instruction",
        "decode's products are those of another architecture's matrix instruction",
        "microsoft/onnxruntime#24027",
        subjects=DECODER,
        features=("instruction", "sixteen-bit"),
        cause="another instruction",
        born="linear",
    ),
)
