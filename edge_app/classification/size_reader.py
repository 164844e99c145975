"""The network's reading of size as a size rule: px of the frame, for the calibration to turn into um."""

import numpy as np
import numpy.typing as npt

from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import DESCRIPTORS, SIZE_SHARES, MeasuredColumns, field_positions
from edge_app.classification.crops import cut_crops
from edge_app.classification.rejection import Classification
from edge_app.errors import UserError
from edge_app.measurement.calibration import SIZE_RULES, Calibration
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import Regions

__all__ = ["SizeReader", "check_size_rule", "learned_ecd_px"]

F4 = npt.NDArray[np.float32]

_ASKS_FOR_SIZE = (*(name for name in DESCRIPTORS if name.endswith("_ecd_um")), *SIZE_SHARES)


def check_size_rule(calibration: Calibration, bundle: Bundle, *, key: str = "") -> None:
    """Refuse a calibration whose sizes this network cannot give.

    Parameters
    ----------
    calibration, bundle
        What sizes, and what would read them.
    key
        What the user set; default: the key of the settings that the calibration comes from.

    Raises
    ------
    UserError
        By the size rule ``learned``: the network reads no size, asks for the measured size itself, or is another one
        than the calibration was made with.
    """
    if calibration.size_rule != "learned":
        return
    nominal = calibration.id.startswith("nominal-")
    key = key or ("flow_cell.size_rule" if nominal else "flow_cell.calibration_file")
    found = "learned" if nominal else f"{calibration.id} by size rule learned"
    name = f"bundle {bundle.description.name} ({bundle.directory})"
    allowed = f"allowed with it: {', '.join(rule for rule in SIZE_RULES if rule != 'learned')}"
    if bundle.size_head is None:
        raise UserError(f"{key}: is {found}, but {name} has no size head; {allowed}")
    asked = [column for column in bundle.geometry.context if column in _ASKS_FOR_SIZE]
    if asked:
        raise UserError(f"{key}: is {found}, but {name} asks for the measured size itself ({asked[0]}); {allowed}")
    made_with = calibration.size_reader_sha256
    if made_with and made_with != bundle.size_reader_sha256:
        raise UserError(
            f"{key}: is {found}, made with size reader {made_with[:12]}, but {name} reads by "
            f"{bundle.size_reader_sha256[:12]}; take that bundle, or calibrate with this one"
        )


def learned_ecd_px(classification: Classification, *, um_per_px: float) -> F4 | None:
    """Diameter that the network reads, px of the frame, float32 (n,); None where it reads none.

    Parameters
    ----------
    classification
        Of crops cut from the frame at ``um_per_px``.
    um_per_px
        Scale of the frame as it was stated there; it only takes out what the crops put in.
    """
    size = classification.ecd_um
    return None if size is None else size / np.float32(um_per_px)


class SizeReader:
    """Reads the size of the particles of one source's frames, in order, as the loop does.

    Parameters
    ----------
    classifier
        Its bundle has a size head (see `check_size_rule`).
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._columns = MeasuredColumns(classifier.bundle.geometry.context)

    @property
    def size_reader_sha256(self) -> str:
        """SHA-256 of the network and its size head."""
        return self._classifier.bundle.size_reader_sha256

    def __call__(self, ratio: npt.NDArray[np.uint8], regions: Regions, particles: Particles, *, um_per_px: float) -> F4:
        """Diameters in px of the frame, float32 (n,).

        Parameters
        ----------
        ratio
            uint8 (H, W), code 160 = background.
        regions, particles
            Its n regions, measured.
        um_per_px
            Scale of the frame.
        """
        p = particles
        crops = cut_crops(
            ratio,
            p.x_px,
            p.y_px,
            p.width_px,
            p.height_px,
            geometry=self._classifier.bundle.geometry,
            um_per_px=um_per_px,
            field=field_positions(p.x_px, p.y_px, p.width_px, p.height_px, frame_shape=ratio.shape),
            columns=self._columns.of_frame(p, regions),
        )
        found = learned_ecd_px(self._classifier.classify(crops), um_per_px=um_per_px)
        if found is None:
            raise ValueError(f"{self._classifier.bundle.description.name} reads no size")
        return found
