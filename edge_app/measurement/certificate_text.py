"""A certificate as a document: Markdown that reads well as plain text."""

from collections.abc import Sequence

from edge_app.measurement.certificate import Certificate

__all__ = ["certificate_markdown"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in (head, *rows)]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def certificate_markdown(certificate: Certificate) -> str:
    """Write a certificate for people: lots, curve with its k = 2 uncertainty, checks, optics."""
    c, calibration = certificate, certificate.calibration
    lines = [
        f"# Calibration certificate {c.id}",
        "",
        *_table(
            ("", ""),
            [
                ("made", f"{c.created} by {c.who or '(no name given)'}"),
                ("expires", c.expires),
                ("instrument", c.instrument or "(not named)"),
                ("software", c.software),
                ("scale, cell depth", f"{calibration.um_per_px:g} um/px, {calibration.depth_um:g} um"),
                ("size rule", calibration.size_rule_words),
                ("result", "all checks passed" if c.passed else "CHECKS FAILED, see below"),
            ],
        ),
        "",
        "## Bead lots",
        "",
        "Reading: median single bead over the depth of the cell. Uncertainties are expanded, k = 2.",
        "",
        *_table(
            (
                "lot",
                "certified um",
                "reading px",
                "curve um",
                "residual um",
                "U um",
                "RSD %",
                "single",
                "clusters",
                "dirt",
            ),
            [
                (
                    f"{r.nominal_um:g} um {r.lot}".strip(),
                    f"{r.certified_um:g} +- {r.uncertainty_um:g}",
                    f"{r.reading_px:.3f} +- {2 * r.u_reading_px:.3f}",
                    f"{r.curve_um:.3f}",
                    f"{r.residual_um:+.3f}",
                    f"{r.uncertainty_curve_um:.3f}",
                    f"{100 * r.rsd:.1f}",
                    f"{r.singlets:.0f}",
                    f"{r.clusters:.0f}",
                    f"{r.background:.0f}",
                )
                for r in c.lots
            ],
        ),
        "",
        f"Size curve about the line um = {c.slope_um_per_px:.4f} px - {c.offset_um:.3f} um; "
        f"valid from {c.lots[0].certified_um:g} to {c.lots[-1].certified_um:g} um, extrapolated outside.",
        "",
        "## Counts",
        "",
        *_table(
            ("lot", "per mL", "95 %", "certified", "recovery %", "frames", "volume uL"),
            [
                (
                    f"{r.nominal_um:g} um",
                    f"{r.per_ml:,.0f}",
                    f"{r.per_ml_low:,.0f} to {r.per_ml_high:,.0f}",
                    _optional(r.certified_per_ml, ",.0f"),
                    _optional(None if r.recovery is None else 100 * r.recovery, ".1f"),
                    f"{r.frames} ({r.frames_rejected} rejected)",
                    f"{1000 * r.volume_ml:.3f}",
                )
                for r in c.lots
            ],
        ),
        "",
        "## Checks",
        "",
        *_table(
            ("check", "found", "allowed", "result"),
            [
                (
                    k.name,
                    f"{_optional(k.value, '.4g')} {k.unit}".strip(),
                    k.limit,
                    {True: "pass", False: "FAIL", None: "-"}[k.passed],
                )
                for k in c.checks
            ],
        ),
        "",
        "## Optics",
        "",
        "Shift of the dark centroid in its box with the place in the frame (u, v in +-1), in shares of the box:",
        "",
        *_table(
            ("beads", "x by u", "y by v", "x, y in the middle", "cross terms"),
            [
                (
                    f"{size} um, {m.beads}",
                    f"{m.coefficients['x_by_u']:+.3f} +- {2 * m.u_coefficients['x_by_u']:.3f}",
                    f"{m.coefficients['y_by_v']:+.3f} +- {2 * m.u_coefficients['y_by_v']:.3f}",
                    f"{m.coefficients['x_offset']:+.3f}, {m.coefficients['y_offset']:+.3f}",
                    f"{m.coefficients['x_by_v']:+.3f}, {m.coefficients['y_by_u']:+.3f}",
                )
                for size, m in c.optics.asymmetry.items()
            ],
        ),
        "",
        f"Background {_optional(c.optics.background_level, '.0f')} grey levels, noise "
        f"{_optional(None if c.optics.noise is None else 100 * c.optics.noise, '.2f')} %, shading "
        f"{_optional(None if c.optics.shading is None else 100 * c.optics.shading, '.1f')} %, focal plane "
        f"{_optional(c.optics.focus_offset_um, '.0f')} um off the middle of the cell, to either side (estimate).",
    ]
    return "\n".join(lines) + "\n"
