"""The simulated flow cell: frames with known truth from rendered particles.

``flow_cell.open_simulation(uri)`` is the source; ``scene`` holds what can be asked for.
"""
