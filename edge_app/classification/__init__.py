"""Particles to classes: model bundle, interpreter back ends, rejection of unknowns."""
