"""Which pixels decided: gradient-weighted class activation (Grad-CAM) of the float network."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge_app.capture.frame import RATIO_ONE
from training.datasets.labelled import LabelledCrops
from training.evaluation.particle_masks import particle_masks
from training.learning import network_inputs

__all__ = ["ImportanceShare", "importance_maps", "share_on_particle"]

F4 = npt.NDArray[np.float32]


def _feature_map(model: Any, least: int) -> Any:
    """Output of the last layer whose picture is still at least ``least`` on a side; None where there is none."""
    found = None
    for layer in model.layers:
        output = getattr(layer, "output", None)
        shape: tuple[int | None, ...] = tuple(getattr(output, "shape", ()))
        # A single channel is the input, not a feature map.
        if len(shape) == 4 and (shape[1] or 0) >= least and (shape[3] or 0) > 1:
            found = output
    return found


def importance_maps(
    model: Any, crops: LabelledCrops, target: npt.NDArray[np.integer], *, batch: int = 128
) -> F4 | None:
    """How much each pixel speaks for a class.

    Parameters
    ----------
    model : keras.Model
        Float network, outputs ``logits`` and others.
    crops : LabelledCrops
    target : ndarray of int (n,)
        Class of the network to explain.
    batch : int

    Returns
    -------
    ndarray of float32 (n, W, W) or None
        0 and above, each map's maximum 1 (all 0 where nothing speaks for the class); None for a network without
        feature maps.

    Notes
    -----
    Taken at the last feature map of at least half the window: the last of all is 5 x 5 for a window of 40, too coarse
    for particles of 8 px. There gradients are multiplied place by place (HiResCAM), since an average over the place
    would spread them beyond the pixels that they came from, and with what differs from the activations of an empty
    picture: what the network has everywhere says nothing of the particle.

    References
    ----------
    R. Selvaraju et al., ICCV 2017; R. Draelos, L. Carin, arXiv 2011.08891.
    """
    window = crops.pixels.shape[1]
    features = _feature_map(model, window // 2)
    if features is None:
        return None
    tap = keras.Model(model.input, {"features": features, "logits": model.output["logits"]})
    maps = np.zeros((len(crops), window, window), np.float32)
    for at in range(0, len(crops), batch):
        rows = np.arange(at, min(at + batch, len(crops)))
        some = crops.take(rows)
        empty = tap(_tensors(replace(some, pixels=np.full_like(some.pixels, RATIO_ONE))), training=False)["features"]
        with tf.GradientTape() as tape:
            out = tap(_tensors(some), training=False)
            score = tf.reduce_sum(tf.gather(out["logits"], target[rows].astype(np.int32), axis=1, batch_dims=1))
        slope = tape.gradient(score, out["features"])
        coarse = tf.nn.relu(tf.reduce_sum(slope * (out["features"] - empty), axis=-1)).numpy()
        for i, one in zip(rows.tolist(), coarse, strict=True):
            fine = np.asarray(cv2.resize(one, (window, window), interpolation=cv2.INTER_LINEAR), np.float32)
            maps[i] = fine / max(float(fine.max()), 1e-12)
    return maps


def _tensors(crops: LabelledCrops) -> dict[str, Any]:
    return {name: tf.constant(values) for name, values in network_inputs(crops).items()}


@dataclass(frozen=True, kw_only=True)
class ImportanceShare:
    """Mean share of the importance that lies on the particle, and of the window that the particle covers."""

    crops: int
    on_particle: float
    near_particle: float
    area: float


def share_on_particle(maps: F4, pixels: npt.NDArray[np.uint8]) -> ImportanceShare:
    """Where the importance lies.

    Parameters
    ----------
    maps : ndarray of float32 (n, W, W)
    pixels : ndarray of uint8 (n, W, W, 1)
    """
    masks, near = particle_masks(pixels), particle_masks(pixels, grow_px=2)
    total = maps.sum(axis=(1, 2))
    use = (total > 0) & masks.any(axis=(1, 2))
    if not use.any():
        return ImportanceShare(crops=0, on_particle=float("nan"), near_particle=float("nan"), area=float("nan"))

    def share(which: npt.NDArray[np.bool_]) -> float:
        return float(((maps * which).sum(axis=(1, 2))[use] / total[use]).mean())

    return ImportanceShare(
        crops=int(use.sum()), on_particle=share(masks), near_particle=share(near), area=float(masks[use].mean())
    )
