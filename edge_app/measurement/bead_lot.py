"""One lot of a calibration: its fit, or the reason why it is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_app.errors import UserError
from edge_app.measurement.bead_fit import BeadFit, BeadFitSettings, diameters_px, extinction_area_px, fit_singlets
from edge_app.measurement.bead_plan import BeadStandard
from edge_app.measurement.bead_run import BeadRun
from edge_app.measurement.calibration import SizeRule
from edge_app.measurement.certificate_content import CalibrationSettings
from edge_app.measurement.size_curve import STRAIGHT_FROM_UM

__all__ = ["FittedLot", "far_from_focus", "fit_lot", "fit_or_reason", "implausible", "refusal_of"]

PLAUSIBLE: Final = (0.70, 1.45)

PLAUSIBLE_OFFSET_UM: Final = {"half_max": 3.5, "mask": 9.5, "learned": 1.5}
"""A lot read at the stated scale, without any calibration, lies between 0.70 and 1.45 times its size plus the halo.

A network reads the size without the halo; what is left is how far it may be off on optics that it has not seen.
"""


@dataclass(frozen=True, kw_only=True)
class FittedLot:
    """A lot with its run and what the mixture fit made of it."""

    standard: BeadStandard
    run: BeadRun
    fit: BeadFit


def fit_lot(run: BeadRun, *, rule: SizeRule, settings: BeadFitSettings) -> BeadFit | None:
    """Mixture fit of a run's particles; None where there is next to nothing.

    Raises
    ------
    UserError
        If the rule is ``learned`` and no network has read the run's sizes.
    """
    p = run.particles
    if rule == "learned" and not run.size_reader_sha256:
        raise UserError(f"{run.origin}: size rule learned, but no network has read its sizes; allowed: half_max, mask")
    return fit_singlets(
        diameters_px(p.area_px, p.half_max_area_px, rule, p.learned_ecd_px),
        extinction_area_px(p),
        p.frame,
        counted=p.weight > 0,
        settings=settings,
    )


def fit_or_reason(standard: BeadStandard, run: BeadRun, settings: CalibrationSettings) -> FittedLot | str:
    """The fitted lot, or why it is refused."""
    fit, limits = fit_lot(run, rule=settings.size_rule, settings=settings.fit), settings.fit
    if fit is None:
        return f"{standard.name}: too few beads: {len(run.particles)} particles in {run.frames} frames"
    if fit.background_share > limits.most_background:
        return (
            f"{standard.name}: {fit.background_share:.0%} of the particles are no beads (allowed "
            f"{limits.most_background:.0%}): rinse the cell, use filtered water"
        )
    if fit.clustered > limits.most_clustered:
        return (
            f"{standard.name}: clumped: {fit.clustered:.0%} of the beads are doublets or more (allowed "
            f"{limits.most_clustered:.0%}): sonicate and mix again"
        )
    if fit.singlets < limits.min_singlets:
        return (
            f"{standard.name}: too few beads: {fit.singlets:.0f} single beads in {run.frames} frames (needed "
            f"{limits.min_singlets}): run longer or less diluted"
        )
    return FittedLot(standard=standard, run=run, fit=fit)


def _stated_um(lot: FittedLot, settings: CalibrationSettings) -> tuple[float, float, float]:
    """What a lot reads at the stated scale, without any calibration, and the least and most that it can, um."""
    certified = lot.standard.certified_um
    high = PLAUSIBLE[1] * certified + PLAUSIBLE_OFFSET_UM[settings.size_rule]
    return lot.fit.location_px * lot.run.um_per_px, PLAUSIBLE[0] * certified, high


def implausible(lot: FittedLot, settings: CalibrationSettings) -> str | None:
    """Why a lot cannot have its certified size at the stated scale, None if it can."""
    reads, low, high = _stated_um(lot, settings)
    if low <= reads <= high:
        return None
    return (
        f"{lot.standard.name}: wrong lot: {reads:.1f} um at the stated {lot.run.um_per_px:g} um/px, "
        f"{low:.1f} to {high:.1f} um expected"
    )


def far_from_focus(lots: Sequence[FittedLot], settings: CalibrationSettings) -> str | None:
    """Say so where lots that agree with each other read too large: not the labels are wrong."""
    large = [(lot.standard, reads) for lot in lots for reads, _, high in [_stated_um(lot, settings)] if reads > high]
    held_to_the_line = [standard for standard, _ in large if standard.certified_um >= STRAIGHT_FROM_UM]
    if not held_to_the_line or (len(lots) < 4 and len(large) < 2):
        return None
    return (
        ", ".join(f"{standard.name} reads {reads:.1f} um" for standard, reads in large)
        + f" at the stated {lots[0].run.um_per_px:g} um/px, and all lots agree: the focal plane is far outside of the "
        "cell, or the stated scale is wrong; focus, then run the lots again"
    )


def refusal_of(standard: BeadStandard, run: BeadRun, settings: CalibrationSettings) -> str | None:
    """Why a single lot would be refused, None if it is good; what only all lots together show is not looked at."""
    quick = settings.fit.model_copy(update={"bootstrap": 20})
    found = fit_or_reason(standard, run, settings.model_copy(update={"fit": quick}))
    return found if isinstance(found, str) else implausible(found, settings)
