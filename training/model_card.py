"""The text that goes with a bundle: what it is for, what it was measured on, where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edge_app.classification.bundle import Bundle
from edge_app.classification.crops import CropGeometry
from edge_app.classification.rejection import Rejection

__all__ = ["evaluation_card", "model_card"]


def model_card(
    *,
    name: str,
    version: str,
    classes: Sequence[str],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
    geometry: CropGeometry,
    rejection: Rejection,
    temperature: float,
) -> str:
    """Write ``MODEL_CARD.md`` from the figures, nothing by hand."""
    lines = _head(
        name=name,
        version=version,
        classes=classes,
        training=training,
        geometry=geometry,
        rejection=rejection,
        temperature=temperature,
    )
    for test, figures in metrics.items():
        lines += [f"## Measured on: {test}", ""]
        if "macro_f1" not in figures:
            lines += [f"{figures['particles']} particles of families outside the classes were called:", ""]
            lines += [f"- {c}: {share:.1%}" for c, share in figures["called"].items() if share > 0]
            if "composition_error_with" in figures:
                lines += [
                    "",
                    "With 10 % of such particles in the mix the composition error is "
                    f"{figures['composition_error_with']:.3f} with rejection, "
                    f"{figures['composition_error_without']:.3f} without.",
                ]
            lines.append("")
            continue
        lines += [
            f"{figures['particles']} pictures, none of a particle trained on. Macro-F1 {figures['macro_f1']:.3f} "
            f"({figures['macro_f1_without_rejection']:.3f} with none rejected), "
            f"rejected {figures['rejected_share']:.1%}, calibration error {figures['expected_calibration_error']:.3f}.",
            "",
            "| class | pictures | recall | precision | F1 |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {c} | {v['particles']} | {v['recall']:.3f} | {v['precision']:.3f} | {v['f1']:.3f} |"
            for c, v in figures["per_class"].items()
        ]
        lines.append("")
        if "by_size_um" in figures:
            lines += ["| true size, um | pictures | macro-F1 | without rejection |", "|---|---|---|---|"]
            lines += [
                f"| {size} | {v['particles']} | {v['macro_f1']:.3f} | {v['macro_f1_without_rejection']:.3f} |"
                for size, v in figures["by_size_um"].items()
            ]
            lines.append("")
        if figures.get("oil_against_rest"):
            oil = figures["oil_against_rest"]
            lines += [
                f"Silicone oil against everything else: balanced accuracy {oil['balanced_accuracy']:.3f}, "
                f"macro-F1 {oil['macro_f1']:.3f}.",
                "",
            ]
        if "int8_loss" in figures:
            lines += [
                f"int8 against float: macro-F1 {100 * figures['int8_loss']:+.2f} points lost, "
                f"same class for {figures['int8_same_class']:.2%}.",
                "",
            ]
    return "\n".join([*lines, *_LIMITS])


def evaluation_card(bundle: Bundle, figures: Mapping[str, Any]) -> str:
    """Write the model card of a bundle from the figures of its evaluation, nothing by hand.

    Parameters
    ----------
    bundle : Bundle
    figures : mapping
        ``evaluation.json``.
    """
    d, scores, data = bundle.description, figures["scores"], figures["data"]
    lines = _head(
        name=d.name,
        version=d.version,
        classes=d.classes,
        training=d.training,
        geometry=bundle.geometry,
        rejection=d.rejection,
        temperature=d.temperature,
    )
    macro = scores["macro_f1"]
    lines += [
        f"## Measured on: {data['name']}",
        "",
        f"{data['pictures']} pictures in {data['groups']} groups; 95 % intervals over groups. Model file SHA-256 "
        f"`{figures['bundle']['model_sha256'][:16]}`.",
        "",
        f"Macro-F1 {macro['value']:.3f} ({macro['low']:.3f} to {macro['high']:.3f}), "
        f"{scores['macro_f1_without_rejection']:.3f} with none rejected; {scores['unknown_share']:.1%} called unknown.",
        "",
        "| class | pictures | precision | recall | F1 |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['pictures']} | {_interval(row['precision'])} | {_interval(row['recall'])} "
        f"| {_interval(row['f1'])} |"
        for name, row in zip(figures["classes"], scores["per_class"], strict=True)
        if row["pictures"]
    ]
    lines += ["", f"| size, um ({data['size']}) | pictures | macro-F1 |", "|---|---|---|"]
    lines += [
        f"| {size} | {row['pictures']} | {_interval(row['macro_f1'])} |"
        for size, row in scores["by_size_um"].items()
        if row["pictures"]
    ]
    calibration, background, repeats = figures["calibration"], figures["background_only"], figures["repeatability"]
    lines += [
        "",
        f"- Calibration error {calibration['ece']:.3f} ({calibration['ece_before']:.3f} before temperature).",
        f"- Background only: balanced accuracy {background['balanced_accuracy']['value']:.3f}, chance "
        f"{background['chance']:.3f}.",
    ]
    if repeats["changed_share"] is not None:
        lines.append(
            f"- The same particle pictured {repeats['times']} times: {repeats['changed_share']:.1%} of calls change."
        )
    if figures["prevalence"]["all"]:
        mix = figures["prevalence"]["all"]
        lines.append(
            f"- Class mix, mean absolute error in points: {100 * mix['emq']['mae']:.1f} (EMQ), "
            f"{100 * mix['acc']['mae']:.1f} (ACC), {100 * mix['count']['mae']:.1f} (counting)."
        )
    if figures["rejection"]:
        found = figures["rejection"]
        lines.append(
            "- With 10 % unknown particles rejection lowers the composition error by "
            f"{found['gain_at_10_percent']:.0%}; "
            f"{found['curves'][1]['unknown_rejected']:.0%} of them are rejected, and "
            f"{found['curves'][1]['known_rejected']:.0%} of the known."
        )
    worst = (figures.get("robustness") or {}).get("worst_at_severity_2")
    if worst:
        lines.append(
            f"- Worst corruption at severity 2: {worst['name']} ({worst['unit']} {worst['value']:g}), "
            f"{100 * worst['loss']['value']:.1f} points of macro-F1 lost."
        )
    if figures["int8"]:
        lines.append(
            f"- int8 against float: {figures['int8']['loss_points']:+.2f} points of macro-F1 lost, same class for "
            f"{figures['int8']['same_class']:.2%}."
        )
    speed = figures["speed"]
    timings = ", ".join(f"{t['us_per_crop']:.0f} (batch {t['batch']}, {t['threads']})" for t in speed["timings"])
    lines += [
        f"- {speed['macs'] / 1e6:.1f} million multiply-accumulates per crop; us per crop (batch, threads) with "
        f"{speed['backend']}: {timings}.",
        "",
    ]
    return "\n".join([*lines, *(_LIMITS if data["simulated"] else _LIMITS[:2] + _LIMITS[4:])])


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _head(
    *,
    name: str,
    version: str,
    classes: Sequence[str],
    training: Mapping[str, Any],
    geometry: CropGeometry,
    rejection: Rejection,
    temperature: float,
) -> list[str]:
    return [
        f"# Model card: {name} {version}",
        "",
        "Sorts pictures of sub-visible particles from a flow imager into classes, one particle at a time.",
        "",
        f"- Classes: {', '.join(classes)}; `unknown` by rejection.",
        f"- Input: {geometry.window_px} x {geometry.window_px} px, grey, background-divided (code 160 = background), "
        f"box with {geometry.margin_px} px of margin at {geometry.um_per_px:g} um/px; beside it "
        f"{', '.join(geometry.context)}.",
        f"- Network: `{training.get('network')}`, full-integer int8. Trained on: {training.get('source')}, "
        f"{training.get('particles', '?')} particles in {training.get('views', '?')} pictures.",
        f"- Temperature {temperature:.3f}; called `unknown` below a probability of {rejection.minimum_probability:g}.",
        "",
    ]


_LIMITS: Final = (
    "## Limits",
    "",
    "- Trained on simulated optics: figures above say how it reads the simulator, not your instrument. Check it on",
    "  labelled pictures of your own (`python -m training evaluate`), adapt it to them (`python -m training fit`).",
    "- Below 8 um different kinds of particle can look the same in low-aperture optics; people disagree there too.",
    "- It knows the classes above only. Rejection finds part of what is none of them (see `unknown`).",
    "- Static and deterministic: the same picture gives the same answer, whatever it is classified with.",
    "",
)
