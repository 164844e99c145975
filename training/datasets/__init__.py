"""Labelled pictures to train on: the simulator and folders of pictures, as sources of the same kind."""
