"""Two processes that share each batch end with the weights of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_app.errors import UserError
from training.fitting.machines import Machines, precision_policy

#: What each process runs: no dropout, since its draws are the replica's own.
WORKER = """
import json, sys
import numpy as np
from training.fitting.machines import Machines
machines = Machines.find(workers_config=sys.argv[1] if sys.argv[1] else None, precision="float32")
import keras
from training.datasets.labelled import LabelledCrops
from training.fitting.schedule import Schedule, StageRate
from training.fitting.stages import freeze_statistics
from training.learning import Validation, teach
from training.networks import build_network
rng = np.random.default_rng(0)
n = 32
label = np.arange(n) % 2
pixels = np.clip(160 + 40 * (2 * label[:, None, None] - 1) + rng.normal(0, 20, (n, 16, 16)), 0, 255).astype(np.uint8)
nan = np.full(n, np.nan, np.float32)
crops = LabelledCrops(pixels=pixels[..., None], context=np.zeros((n, 4), np.float32), label=label, group=label,
    box_px=np.full(n, 9, np.float32), ecd_um=np.full(n, 9, np.float32), field_radius=nan, depth_um=nan,
    um_per_px=np.ones(n, np.float32))
keras.utils.set_random_seed(3)
with machines.network_scope():
    model = build_network("fused_residual", classes=2, window_px=16, alpha=0.25, dropout=0.0, stages=[(32, 1, 2)],
        head=16)
freeze_statistics(model)
schedule = Schedule(epochs=3, samples_per_epoch=64, batch=16, learning_rate=1e-2, warm_up_steps=1, ema_momentum=0.8,
    stages=(StageRate(), StageRate(after=0.3, rate=0.5)))
taught = teach(model, lambda epoch: crops, prior=np.array([0.5, 0.5]), schedule=schedule, seed=1, machines=machines,
    validation=Validation(crops=crops))
np.savez(sys.argv[2], *model.get_weights(), losses=[row["loss"] or 0.0 for row in taught.history],
    validation=[row["validation_loss"] for row in taught.history])
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    configs = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": k}}) for k in (0, 1)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_NUM_INTRAOP_THREADS": "1"}

    def start(config: str, name: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, config, str(tmp_path / name)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    both = [start(config, f"worker{k}.npz") for k, config in enumerate(configs)]
    for process in both:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    alone = start("", "alone.npz")
    said = alone.communicate()[1]
    assert alone.returncode == 0, said
    first, second, one = (np.load(tmp_path / f"{name}.npz") for name in ("worker0", "worker1", "alone"))
    for name in first.files:
        assert np.array_equal(first[name], second[name]), name
    np.testing.assert_allclose(first["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(first["validation"], one["validation"], rtol=1e-3)
    for name in one.files:
        np.testing.assert_allclose(first[name], one[name], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{broken", "not a configuration of workers"),
        ('{"cluster": {"worker": ["a:1"]}}', "not a configuration of workers"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "index is 1, allowed are 0 to 0"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "needed is a list of host:port"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "task ps"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "task chief is not known"),
        ("nowhere.json", "nowhere.json: cannot be read"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Machines.find(workers_config=text)


def test_one_worker_needs_no_cluster() -> None:
    config = '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}'
    machines = Machines.find(workers_config=config, precision="float32")
    assert (machines.workers, machines.replicas, machines.chief) == (1, 1, True)


def test_precision_follows_the_weakest_gpu() -> None:
    assert precision_policy("auto", [{"compute_capability": (9, 0)}, {"compute_capability": (7, 0)}]) == "mixed_float16"
    assert precision_policy("auto", [{"compute_capability": (6, 1)}]) == "float32"
    assert precision_policy("auto", [{}]) == "float32"
    with pytest.raises(UserError, match="--precision is half"):
        precision_policy("half", [])  # type: ignore[arg-type]
