"""Lamp and camera: the empty field, drift, noise, 8 bits."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.simulation.artefacts import Schlieren, dirt, shade
from edge_app.capture.simulation.scene import FlowCellScene

__all__ = ["Camera", "Patch"]

F4 = npt.NDArray[np.float32]
Patch = tuple[slice, slice]

_STEPS: Final = 64  # steps per grey level in the fixed-point pictures: rounding stays far below the noise
_SHIFT_PX: Final = 256  # the noise bank is that much larger than a frame on each axis
_FIELD, _BANK, _EXPOSURE, _SCHLIEREN = 11, 12, 13, 14  # streams of random numbers


class Camera:
    """Turns light over background into 8-bit frames.

    Noise is drawn once, over an area larger than a frame, and each frame takes it at an offset and a sign of its own:
    what one pixel sees in time is independent, and a frame costs one pass over the picture.

    The noise of a pixel at the mean level has ``noise_fraction`` of it; where a particle takes or gives light the shot
    part of its variance follows. The shading's own effect on the noise (a few per cent of it) is left out.
    """

    def __init__(self, scene: FlowCellScene, *, um_per_px: float) -> None:
        self._scene = scene
        height, width = scene.height_px, scene.width_px
        rng = np.random.default_rng([scene.seed, _FIELD])
        centre = (float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.42, 0.58)))
        field = shade(fraction=scene.shading_fraction, height_px=height, width_px=width, centre=centre)
        field *= dirt(rng, count=scene.dirt_count, height_px=height, width_px=width)
        field *= 1.0 + np.float32(scene.fixed_pattern_fraction) * rng.standard_normal((height, width), dtype=np.float32)
        self.field: F4 = (field * np.float32(scene.level / float(field.mean(dtype=np.float64)))).astype(np.float32)
        self._field = np.clip(np.rint(self.field * _STEPS), 0, 32767).astype(np.int16)
        bank = np.random.default_rng([scene.seed, _BANK]).standard_normal(
            (height + _SHIFT_PX, width + _SHIFT_PX), dtype=np.float32
        )
        self._noise = np.clip(np.rint(bank * np.float32(scene.noise_fraction * scene.level * _STEPS)), -32768, 32767)
        self._noise = self._noise.astype(np.int16)
        self._schlieren = (
            Schlieren(
                np.random.default_rng([scene.seed, _SCHLIEREN]),
                fraction=scene.schlieren_fraction,
                size_px=scene.schlieren_size_um / um_per_px,
                height_px=height,
                width_px=width,
            )
            if scene.schlieren_fraction
            else None
        )
        self._way_px_per_frame = scene.mean_speed_um_per_s / scene.rate_hz / um_per_px

    def light(self, frame: int) -> float:
        """Lamp relative to its mean at a frame: slow drift and flicker."""
        scene = self._scene
        phase = 2 * np.pi * frame / scene.rate_hz / scene.led_drift_period_s
        flicker = np.random.default_rng([scene.seed, _EXPOSURE, frame]).standard_normal()
        return float(1 + scene.led_drift_fraction * np.sin(phase) + scene.led_flicker_fraction * flicker)

    def expose(self, frame: int, ratio: F4, patches: list[Patch]) -> npt.NDArray[np.uint8]:
        """Take a frame.

        Parameters
        ----------
        frame
            Number of the frame, which decides lamp and noise.
        ratio
            float32 (H, W), light over background; 1 outside ``patches``.
        patches
            Where something is, as (rows, columns).

        Returns
        -------
        ndarray of uint8, (H, W)
        """
        scene = self._scene
        height, width = scene.height_px, scene.width_px
        rng = np.random.default_rng([scene.seed, _EXPOSURE, frame, 1])
        dy, dx, sign = (int(v) for v in rng.integers(0, (_SHIFT_PX + 1, _SHIFT_PX + 1, 2)))
        noise = self._noise[dy : dy + height, dx : dx + width]
        light = self.light(frame) / _STEPS
        noise_scale = (1 if sign else -1) / _STEPS
        field = self._field
        if self._schlieren is not None:
            factor = self._schlieren.at(frame * self._way_px_per_frame)
            field = np.asarray(cv2.multiply(field, factor, dtype=cv2.CV_16S), np.int16)
        image = np.empty((height, width), np.uint8)
        cv2.addWeighted(field, light, noise, noise_scale, 0.0, dst=image, dtype=cv2.CV_8U)
        read = scene.read_noise_share
        for where in patches:
            here = ratio[where]
            signal = cv2.multiply(field[where], here, scale=light, dtype=cv2.CV_32F)
            spread = cv2.sqrt(np.maximum((1 - read) * here + np.float32(read), 0))
            grain = cv2.multiply(noise[where], spread, scale=noise_scale, dtype=cv2.CV_32F)
            image[where] = cv2.add(signal, grain, dtype=cv2.CV_8U)
        return image
