"""Training workstation: optics simulator, datasets, networks, fit and evaluation."""
