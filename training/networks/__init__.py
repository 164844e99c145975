"""Networks by name, one small file each."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from edge_app.classification.context import DEFAULT_CONTEXT
from edge_app.errors import UserError
from training.networks import (
    fused_residual,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    multi_modal,
    transfer,
    usr_shape,
)
from training.networks.cost import Cost, cost_of
from training.networks.efficientnet_lite import efficientnet_lite

__all__ = ["NETWORKS", "Cost", "build_network", "context_of", "cost_of", "rebuild_network"]

#: name -> builder(classes=, window_px=, **options) of a keras.Model; see `build_network`.
NETWORKS: Final[dict[str, Callable[..., Any]]] = {
    "fused_residual": fused_residual.fused_residual,
    "mobilenet_v2_real_scale": mobilenet_v2.real_scale,
    "mobilenet_v2": mobilenet_v2.standard,
    "mobilenet_v1": mobilenet_v1.mobilenet_v1,
    "mobilenet_v3_small": mobilenet_v3.mobilenet_v3_small,
    "efficientnet_lite0": partial(efficientnet_lite, member=0),
    "efficientnet_lite1": partial(efficientnet_lite, member=1),
    "efficientnet_lite2": partial(efficientnet_lite, member=2),
    "vgg16": partial(transfer.pretrained, reference=transfer.VGG16),
    "resnet50": partial(transfer.pretrained, reference=transfer.RESNET50),
    "usr_shape": usr_shape.usr_shape,
    "multi_modal": multi_modal.multi_modal,
}
#: Networks that ask for more than `DEFAULT_CONTEXT` beside the picture.
_CONTEXTS: Final = {"usr_shape": usr_shape.CONTEXT, "multi_modal": multi_modal.CONTEXT}
_PRETRAINED: Final = ("vgg16", "resnet50")


def _known(name: str) -> str:
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is not known, allowed: {', '.join(NETWORKS)}")
    return name


def context_of(name: str) -> tuple[str, ...]:
    """Columns that a network is made for, `edge_app.classification.crops.CropGeometry.context`.

    Raises
    ------
    UserError
        The name is unknown.

    Examples
    --------
    >>> context_of("fused_residual")
    ('log2_reduction', 'field_x', 'field_y', 'field_known')
    """
    return _CONTEXTS.get(_known(name), DEFAULT_CONTEXT)


def build_network(name: str, *, classes: int, window_px: int, **options: Any) -> Any:
    """Build a network of the registry.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    classes : int
        Length of the logits.
    window_px : int
        Side of the input window.
    **options
        Of that network (``alpha``); ``context``: columns of the second input, default as many as `context_of` names.

    Returns
    -------
    keras.Model
        Inputs ``{"crop": (W, W, 1), "context": (K,)}``, outputs ``{"logits": (C,), "embedding": (E,)}`` and, unless
        ``sized=False``, ``{"size": (4,), "novelty": (1,)}``.

    Raises
    ------
    UserError
        The name is unknown, or pretrained weights are not to be had.
    """
    return NETWORKS[_known(name)](classes=classes, window_px=window_px, **options)


def rebuild_network(name: str, *, classes: int, window_px: int, **options: Any) -> Any:
    """Build a network whose weights will be loaded from a bundle: `build_network`, but no pretrained ones are sought.

    The layers do not depend on where the first weights came from.
    """
    if name in _PRETRAINED:
        options = {**options, "weights": None}
    return build_network(name, classes=classes, window_px=window_px, **options)
