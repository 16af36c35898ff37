"""What the audit's answers mean, in sentences."""

from __future__ import annotations

SAME = (
    "The compiled code of both gives no reason for other bits: same instructions, chains, layouts "
    "and dataflow. That is no proof of equal bits; run the contract on the device."
)
DIFFERENT = (
    "The compiled code differs in what decides order or roundings. That does not prove other bits; "
    "expect them, and run the contract on the device to see."
)
UNKNOWN = (
    "The compiled code cannot be compared in all that decides an order, so the audit says nothing "
    "about the bits. Only a run on the device can."
)
BY_MODEL = (
    "The compiled code multiplies with two kinds of matrix instruction, which add alike by a model "
    "of tensor cores; nothing else decides another order or other roundings. No device has been "
    "asked, so it is not 'same'; run the contract on the device."
)
SETTLED = "settled on a device: not measured"
MEANING = {"same": SAME, "different": DIFFERENT, "unknown": UNKNOWN, "equal by model": BY_MODEL}

CANNOT = (
    "how one matrix instruction adds inside (order, kept bits, flushing)",
    "that a row's result is independent of its place in the tile and of the other rows",
    "that two kinds of matrix instruction (mma.sync, wgmma, tcgen05) add alike: where a model of "
    "them says so it is 'equal by model', else unknown",
    "that a matrix instruction with zero operands leaves its accumulator unchanged",
    "trip counts, masks, addresses, the order of launches, and races",
    "the order along K of mma.sync and of plain fma, whose operands are registers",
    "which lane holds which key, beyond the layouts that the compiler states",
    "kernels without a loop over tiles (split equal to tile), where loop and merge are one",
    "anything about another version of Triton or ptxas, or another architecture",
    "that a different signature makes different bits",
)


def cannot() -> str:
    """The list of what equal signatures do not prove, for people."""
    return "Equal signatures do not prove:\n" + "\n".join(f"  - {each}" for each in CANNOT)
