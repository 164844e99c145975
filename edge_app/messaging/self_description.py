"""What a device says of itself: what it is (``info``) and how it is (``status``, also as its will)."""

from collections.abc import Mapping
from typing import Any

from edge_app.measurement.calibration import Calibration
from edge_app.messaging.messages import Info, State, Status, utc_text
from edge_app.messaging.provenance import calibration_words
from edge_app.messaging.topics import Topics

__all__ = ["SelfDescription"]


class SelfDescription:
    """The latest ``info`` and ``status``; set by any thread, read by the one that publishes.

    Parameters
    ----------
    topics
        Site and device.
    boot_id
        Of this start of the program.
    info
        What the device is; site, device and boot id are filled in.
    calibration
        The one that numbers are made with, stated in every status; None where nothing is measured.
    """

    def __init__(
        self, topics: Topics, *, boot_id: str, info: Info | Mapping[str, Any], calibration: Calibration | None
    ) -> None:
        self._topics = topics
        self._boot_id = boot_id
        self._calibration = calibration
        self.info = self._complete(info)
        self.status = self.status_now("init")

    def set_info(self, info: Info | Mapping[str, Any]) -> None:
        """Replace what the device is."""
        self.info = self._complete(info)

    def set_status(self, state: State, *, run_id: str | None = None, detail: str = "") -> None:
        """Replace how the device is, since now."""
        self.status = self.status_now(state, run_id=run_id, detail=detail)

    def status_now(self, state: State, *, run_id: str | None = None, detail: str = "") -> Status:
        """A status of this moment that is not kept, for example for the will."""
        known = {} if self._calibration is None else dict(calibration_words(self._calibration))
        return Status.model_validate(
            {"state": state, "boot_id": self._boot_id, "since": utc_text(), "run_id": run_id, "detail": detail, **known}
        )

    def _complete(self, info: Info | Mapping[str, Any]) -> Info:
        names = {"site": self._topics.site, "device": self._topics.device, "boot_id": self._boot_id}
        if isinstance(info, Info):
            return info.model_copy(update=names)
        return Info.model_validate({**info, **names})
