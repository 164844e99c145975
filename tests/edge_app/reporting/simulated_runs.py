"""Short runs of the whole pipeline."""

from pathlib import Path

from edge_app.config import load_settings
from edge_app.pipeline import Pipeline, RunRequest

SCENE = (
    "sim:?concentration=80000&seed=5&frames=60&lose_fraction=0.05"
    "&mix=silicone_oil:0.4,protein_aggregate:0.4,glass:0.1,rubber:0.1"
)


def run_pipeline(out: Path, *, source: str = SCENE, **overrides: object) -> Path:
    settings = load_settings(
        None, {"mqtt.url": "off", "run.sample": "mAb 1, lot 7", "run.operator": "A. Analyst", **overrides}
    )
    return Path(Pipeline(RunRequest(source=source, out=out), settings).run()["record"])
