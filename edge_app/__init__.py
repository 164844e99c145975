"""Particle imaging on the edge: frames in, classified and counted particles out over MQTT."""

from typing import Final

__version__: Final = "0.1.0"
