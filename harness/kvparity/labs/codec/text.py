"""The examination as text: a pure function of its document."""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.core.columns import aligned
from kvparity.core.versions import lines as outside_line
from kvparity.labs.codec.document import CodecDocument, CodecReport


def render(report: CodecDocument) -> str:
    """All codecs side by side, then each on its own."""
    lines = [*_head(report), "", *_summary(report.codecs)]
    for codec in report.codecs:
        lines += ["", codec.name, *_layers(codec), *_stages(codec), *_budget(codec)]
        lines += [*_bytes(codec), *_remarks(codec)]
    return "\n".join(lines)


def _head(report: CodecDocument) -> list[str]:
    found, run = report.environment, report.run
    installed = found["versions"]
    assert isinstance(installed, dict)
    versions = ", ".join(
        f"{name} {installed[name]}" for name in ("torch", "transformers") if installed.get(name)
    )
    kinds = [layer.kind for layer in report.layer_plan]
    counts = ", ".join(
        f"{kinds.count(kind)} {words}"
        for kind, words in (
            ("full", "keep all tokens"),
            ("window", "keep a window"),
            ("shared", "share another's"),
            ("state", "keep a state and no keys"),
        )
        if kind in kinds
    )
    return [
        f"{report.contract['name']}: workload {run.workload}, {run.tokens} tokens drawn "
        f"after coded keys were seen, temperature {run.temperature:g}",
        f"  on {found['device']} ({found['device_name']}), {versions}",
        *outside_line(found),
        f"  {run.execution}; codes are dequantised to {run.dequantised_to}; layers: {counts}",
        "  d = logprob without coded keys less logprob with; what a step writes is coded after it",
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:.2e}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:.1f} %"


def _summary(codecs: Sequence[CodecReport]) -> list[str]:
    head = [
        "codec",
        "bytes/token",
        "ratio",
        "K rms",
        "V rms",
        "max |d|",
        "approx_kl0",
        "bits differ",
    ]
    rows = []
    for codec in codecs:
        last = codec.depth[-1]
        errors = [layer.error for layer in codec.layers]
        rows.append(
            [
                codec.name,
                f"{codec.bytes_per_token.coded:g}",
                f"{codec.bytes_per_token.ratio:.3f}",
                _number(max(e.k.rel_rms for e in errors)),
                _number(max(e.v.rel_rms for e in errors)),
                _number(last.max_abs_dlogp),
                _number(last.approx_kl0),
                f"{last.differing}/{last.tokens}",
            ]
        )
    return [
        "all layers coded (K, V rms: of the worst layer)",
        *aligned([head, *rows], right=True, indent="  "),
    ]


def _layers(codec: CodecReport) -> list[str]:
    head = ["layer", "stores", "K rms", "K max", "V rms", "V max"]
    head += ["alone: max |d|", "approx_kl0", "up to here: max |d|", "approx_kl0"]
    rows = []
    for layer, depth in zip(codec.layers, codec.depth[1:], strict=True):
        window = f" {layer.window}" if layer.window else ""
        k, v = layer.error.k, layer.error.v
        rows.append(
            [
                str(layer.model_layer),
                f"{layer.kind}{window}",
                *(_number(x) for e in (k, v) for x in (e.rel_rms, e.max_abs)),
                *(
                    _number(x)
                    for run in (layer.alone, depth)
                    for x in (run.max_abs_dlogp, run.approx_kl0)
                ),
            ]
        )
    return aligned([head, *rows], right=True, indent="  ")


def _stages(codec: CodecReport) -> list[str]:
    head = ["stage", "error without it", "alone", "its share", "approx_kl0 without it", "its share"]
    rows, reasons = [], []
    for stage in codec.stage_shares:
        drift = None if stage.without is None else stage.without.approx_kl0
        rows.append(
            [
                stage.stage,
                _number(stage.rel_rms_without),
                _number(stage.rel_rms_alone),
                _share(stage.share_of_error),
                _number(drift),
                _share(stage.share_of_drift),
            ]
        )
        if stage.reason:
            reasons.append(f"  no run without {stage.stage}: {stage.reason}")
    return [*aligned([head, *rows], right=True, indent="  "), *reasons]


def _budget(codec: CodecReport) -> list[str]:
    found = codec.budget
    if found is None:
        return []
    names = {layer.layer: layer.model_layer for layer in codec.layers}
    exact = ", ".join(str(names[number]) for number in found.exact_layers)
    many = "s" if len(found.exact_layers) > 1 else ""
    words = f"leave layer{many} {exact} exact" if exact else "code all layers"
    if not found.coded_layers:
        words = "no layer can be coded"
    measured = getattr(found.measured, found.measure)
    lines = [
        f"  budget {found.measure} <= {found.limit:g}: {words}; measured {measured:.3g} with "
        f"{len(found.coded_layers)} of {len(names)} coded"
    ]
    more, run = found.next_layer, found.with_next_layer
    if more is not None and run is not None:
        over = getattr(run, found.measure)
        lines.append(f"  with layer {names[more]} coded as well: {over:.3g}")
    return lines


def _bytes(codec: CodecReport) -> list[str]:
    sizes = "; ".join(
        f"{size.length} tokens: {size.calculated} calculated, {size.measured} allocated"
        for size in codec.sizes
    )
    lines = [f"  bytes of {sizes}"]
    chosen = codec.budget is not None
    for size in codec.contexts:
        tail = f", {size.picked:,} within the budget" if chosen else ""
        lines.append(
            f"  {size.length:,} tokens, calculated: {size.execution:,} bytes as executed, "
            f"{size.coded:,} coded{tail}"
        )
    return lines


def _remarks(codec: CodecReport) -> list[str]:
    lines = []
    if not codec.tokens_coded_alone:
        lines.append(
            "  a token's codes depend on the tokens that are written with it: a prompt and a "
            "decode step store other numbers"
        )
    if not codec.stages_explain_all:
        lines.append("  with every stage exact some bits differ: its stages are not all its error")
    widest = max((layer.window or 0 for layer in codec.layers), default=0)
    if widest >= max(size.length for size in codec.sizes):
        lines.append(
            f"  no allocated cache passes the window of {widest}: bytes beyond it are calculated "
            "only (--lengths)"
        )
    return lines
