"""Runs to report on: one of the whole pipeline, and small ones of known content (``recorded_runs``)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "recording"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Record of a short simulated run through the whole pipeline."""
    import simulated_runs

    folder = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_APP_STATE", str(folder / "state"))
        yield simulated_runs.run_pipeline(folder / "runs")
