"""Networks of ``keras.applications`` as feature extractors of this house."""

from typing import Any, Final

import keras

__all__ = ["BATCH_NORM_MOMENTUM", "follow_statistics"]

#: As in the house's own networks. The library's 0.99 to 0.999 are for runs of a million steps: after a few thousand the
#: running statistics would still be those of the start.
BATCH_NORM_MOMENTUM: Final = 0.98


def follow_statistics(extractor: keras.Model) -> Any:
    """The last feature map of a library network, its batch normalisation set to this house's momentum."""
    for layer in extractor.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return extractor.output
