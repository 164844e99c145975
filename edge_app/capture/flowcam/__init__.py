"""A FlowCam export played back: its crops put back on their backgrounds, frame by frame.

``source.open_flowcam(uri)`` is the source; ``export`` reads what the instrument wrote.
"""
