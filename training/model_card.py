"""The text that goes with a bundle: what it is for, what it was measured on, where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_app.classification.crops import CropGeometry
from edge_app.classification.rejection import Rejection

__all__ = ["model_card"]


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
    lines = [
        f"# Model card: {name} {version}",
        "",
        "Sorts pictures of sub-visible particles from a flow imager into classes, one particle at a time.",
        "",
        f"- Classes: {', '.join(classes)}; `unknown` by rejection.",
        f"- Input: {geometry.window_px} x {geometry.window_px} px, grey, background-divided (code 160 = background), "
        f"box with {geometry.margin_px} px of margin at {geometry.um_per_px:g} um/px; log2 of the reduction if larger.",
        f"- Network: `{training.get('network')}`, full-integer int8. Trained on: {training.get('source')}, "
        f"{training.get('particles', '?')} particles in {training.get('views', '?')} pictures.",
        f"- Temperature {temperature:.3f}; called `unknown` below a probability of {rejection.minimum_probability:g}.",
        "",
    ]
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
    lines += [
        "## Limits",
        "",
        "- Trained on simulated optics: figures above say how it reads the simulator, not your instrument. Check it on",
        "  labelled pictures of your own (`python -m training evaluate`), adapt it to them (`python -m training fit`).",
        "- Below 8 um different kinds of particle can look the same in low-aperture optics; people disagree there too.",
        "- It knows the classes above only. Rejection finds part of what is none of them (see `unknown`).",
        "- Static and deterministic: the same picture gives the same answer, whatever it is classified with.",
        "",
    ]
    return "\n".join(lines)
