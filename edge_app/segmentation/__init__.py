"""Frames to particles: background, masks, boxes."""

from edge_app.segmentation.background import Background
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import Regions
from edge_app.segmentation.segmenter import FrameResult, Segmenter
from edge_app.segmentation.settings import SegmentationSettings

__all__ = ["Background", "FrameResult", "Particles", "Regions", "SegmentationSettings", "Segmenter"]
