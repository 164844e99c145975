"""What a FlowCam export says of its run, as every source says it of itself."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from edge_app.capture.flowcam.export import FlowCamTable, RunFacts
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import SourceUri

__all__ = ["describe_run"]


def describe_run(
    where: SourceUri,
    options: BaseModel,
    table: FlowCamTable,
    backgrounds: Mapping[int, npt.NDArray[np.uint8]],
    facts: RunFacts,
    *,
    offset: float,
    offset_pixels: int,
) -> SourceInfo:
    """Put the facts of table, settings and summaries into one place.

    Parameters
    ----------
    where, options
        What was asked for.
    backgrounds
        Number -> uint8 (H, W), one at least; the first stands for the run.
    offset, offset_pixels
        Grey levels by which crops are brighter than the background, and the number of pixels that this was measured on.
    """
    background = next(iter(backgrounds.values()))
    factors = table.numbers("cal_const")
    factor = float(np.nanmedian(factors)) if factors is not None and len(factors) else float("nan")
    volume, volume_from = facts.volume_imaged_ml
    details: dict[str, object] = {
        "instrument": "FlowCam",
        "software": " ".join(facts.ctx.get(f"software.software{k}", "") for k in ("name", "version")).strip(),
        "serial_number": facts.run_summary.get("environment.serialno", ""),
        "camera": facts.ctx.get("camera.cameraname", ""),
        "magnification": facts.ctx.get("software.cameramagnification", ""),
        "flow_cell": facts.ctx.get("fluid.flowcelltype", ""),
        "started": facts.run_summary.get("date/time.start", ""),
        "thresholds_used": facts.thresholds_used,
        "table": table.path.name,
        "table_version": table.version,
        "particles": len(table),
        "images_imaged": facts.images_imaged,
        "images_used": facts.number("run_summary", "images.used"),
        "particles_per_ml": facts.number("summary", "particles / ml"),
        "volume_from": volume_from,
        "min_esd_um": facts.number("ctx", "captureparameters.minesd"),
        "max_esd_um": facts.number("ctx", "captureparameters.maxesd"),
        "distance_to_neighbour_um": facts.number("ctx", "captureparameters.distancetoneighbor"),
        "backgrounds": len(backgrounds),
        "grey_offset": offset,
        "grey_offset_pixels": offset_pixels,
    }
    return SourceInfo(
        uri=where.opened_as(options, grey_offset=offset),
        kind="flowcam",
        width_px=background.shape[1],
        height_px=background.shape[0],
        frame_rate_hz=facts.frame_rate_hz,
        um_per_px=factor if np.isfinite(factor) and factor > 0 else facts.um_per_px,
        depth_um=facts.depth_um,
        flow_rate_ul_per_min=facts.flow_rate_ul_per_min,
        frames_total=table.frames_total,
        background=background,
        thresholds=facts.thresholds,
        volume_imaged_ml=volume,
        details={k: v for k, v in details.items() if v not in ("", None)},
    )
