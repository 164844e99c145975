"""Networks by name, one small file each."""

from collections.abc import Callable
from typing import Any, Final

from edge_app.errors import UserError
from training.networks import fused_residual, mobilenet_v2

__all__ = ["NETWORKS", "build_network"]

#: name -> builder(classes=, window_px=, **options) of a keras.Model; see `build_network`.
NETWORKS: Final[dict[str, Callable[..., Any]]] = {
    "fused_residual": fused_residual.fused_residual,
    "mobilenet_v2_real_scale": mobilenet_v2.real_scale,
    "mobilenet_v2": mobilenet_v2.standard,
}


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
        Of that network (``alpha``).

    Returns
    -------
    keras.Model
        Inputs ``{"crop": (W, W, 1), "context": (K,)}``, outputs ``{"logits": (C,), "embedding": (E,)}`` and, unless
        ``sized=False``, ``{"size": (4,)}``.

    Raises
    ------
    UserError
        The name is unknown.
    """
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is not known, allowed: {', '.join(NETWORKS)}")
    return NETWORKS[name](classes=classes, window_px=window_px, **options)
