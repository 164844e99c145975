"""Particles to check a converted network on: what the device finds in a simulated run, cut as it cuts them."""

from __future__ import annotations

from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.classification.bundle import Bundle
from edge_app.classification.context import MeasuredColumns, field_positions
from edge_app.classification.crops import Crops, cut_crops
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import measure
from edge_app.segmentation.segmenter import Segmenter

__all__ = ["CHECK_SOURCE", "check_particles"]

CHECK_SOURCE = "sim:?concentration=175000&size_min_um=4&frames=24&seed=77"


def check_particles(bundle: Bundle, uri: str = CHECK_SOURCE) -> Crops:
    """Crops of the particles of a simulated run, with everything the bundle's network is told beside the picture.

    Parameters
    ----------
    bundle : Bundle
    uri : str
        Of the simulation; its seed makes the particles the same each time.

    Returns
    -------
    Crops
        Some hundreds, of all families and sizes that the simulation draws.
    """
    source = open_simulation(uri)
    geometry, info = bundle.geometry, source.info
    um_per_px = info.um_per_px or geometry.um_per_px
    calibration = nominal_calibration(um_per_px=um_per_px, depth_um=100.0)
    columns = MeasuredColumns(geometry.context)
    segmenter, shots, parts = Segmenter(), list(source.frames()), []
    segmenter.prime([shot.image for shot in shots[: segmenter.prime_frames]])
    for shot in shots:
        result = segmenter.process(shot)
        if result.ratio is None:
            continue
        p = measure(result.ratio, result.regions, frame=0, time_s=0.0, calibration=calibration)
        box = (p.x_px, p.y_px, p.width_px, p.height_px)
        parts.append(
            cut_crops(
                result.ratio,
                *box,
                geometry=geometry,
                um_per_px=um_per_px,
                field=field_positions(*box, frame_shape=result.ratio.shape),
                columns=columns.of_frame(p, result.regions),
            )
        )
    return Crops.concatenate(parts)
