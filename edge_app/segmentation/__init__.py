"""Frames to particles: background, masks, boxes."""
