"""What a training runs on: this processor, a GPU, several GPUs, or several machines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy.typing as npt

from edge_app.errors import UserError
from training.fitting.quiet_import import quiet_start

with quiet_start():
    import keras
    import tensorflow as tf

__all__ = ["PRECISIONS", "Machines", "Precision", "precision_policy"]

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
PRECISIONS: Final[tuple[str, ...]] = get_args(Precision)

#: Keeps small gradients out of the range where float16 has none.
FLOAT16_LOSS_SCALE: Final = 256.0


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where the steps run.

    Attributes
    ----------
    strategy : tf.distribute.Strategy
    worker, workers : int
        Number of this process, and how many there are.
    policy : str
        Keras' name for what is computed in which precision.
    """

    strategy: Any
    worker: int = 0
    workers: int = 1
    policy: str = "float32"

    @staticmethod
    def here() -> Machines:
        """Whatever strategy is in force, float32."""
        return Machines(strategy=tf.distribute.get_strategy())

    @staticmethod
    def find(*, workers_config: str | None = None, precision: Precision = "auto") -> Machines:
        """Take what there is; call it before anything is computed.

        Parameters
        ----------
        workers_config : str, optional
            TensorFlow's ``TF_CONFIG`` as JSON, or a file with it; default: the environment variable of that name. One
            process on each machine runs the same command with its own ``index``.
        precision : {'auto', 'float32', 'mixed_bfloat16', 'mixed_float16'}
            ``auto``: bfloat16 on a GPU from compute capability 8.0, float16 from 7.0, float32 elsewhere.

        Raises
        ------
        UserError
            A configuration that is none, a worker that cannot be reached.
        """
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        policy = precision_policy(precision, [tf.config.experimental.get_device_details(gpu) for gpu in gpus])
        text = workers_config if workers_config is not None else os.environ.get("TF_CONFIG")
        if text:
            worker, config = _worker_of(text)
            workers = len(config["cluster"]["worker"])
            if workers > 1:
                os.environ["TF_CONFIG"] = json.dumps(config)
                try:
                    strategy = tf.distribute.MultiWorkerMirroredStrategy()
                except (RuntimeError, ValueError, tf.errors.OpError) as error:
                    raise UserError(f"workers: {str(error).splitlines()[0]}") from None
                return Machines(strategy=strategy, worker=worker, workers=workers, policy=policy)
        strategy = tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()
        return Machines(strategy=strategy, policy=policy)

    @property
    def chief(self) -> bool:
        """Whether this process writes the results."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """How many copies of the network share a batch."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def loss_scale(self) -> float | None:
        """Factor on the loss while gradients are computed."""
        return FLOAT16_LOSS_SCALE if self.policy == "mixed_float16" else None

    def __str__(self) -> str:
        parts = [f"{self.workers} workers" if self.workers > 1 else "1 machine"]
        gpus = len(tf.config.list_logical_devices("GPU"))
        parts.append(f"{gpus} GPU" if gpus else "CPU")
        return ", ".join([*parts, self.policy])

    @contextmanager
    def network_scope(self) -> Iterator[None]:
        """Networks that are built inside are computed here, in this precision."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.policy)
        try:
            with self.strategy.scope():
                yield
        finally:
            keras.config.set_dtype_policy(before)

    def share_out(self, arrays: Sequence[npt.NDArray[Any]]) -> tuple[Any, ...]:
        """Rows of a global batch for each replica; every process has drawn the same batch."""
        if self.replicas == 1:
            return tuple(tf.constant(a) for a in arrays)
        each = len(arrays[0]) // self.replicas

        def rows(context: Any, array: npt.NDArray[Any]) -> Any:
            at = context.replica_id_in_sync_group * each
            return tf.constant(array[at : at + each])

        return tuple(
            self.strategy.experimental_distribute_values_from_function(lambda context, a=a: rows(context, a))
            for a in arrays
        )

    def agree(self, number: int, *, what: str) -> None:
        """Refuse to go on where the workers differ.

        Parameters
        ----------
        number : int
            Below 2^24, the same on all workers.
        what : str
            For the message.
        """
        if self.workers == 1:
            return

        @tf.function
        def summed(mine: Any) -> Any:
            # The product makes it a value of the replica, which can be added up.
            each = self.strategy.run(lambda x: x * tf.ones_like(x), args=(mine,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)

        total, squares = summed(tf.constant([number, number**2], tf.float64)).numpy()
        if abs(squares * self.replicas - total * total) > 0.5:
            raise UserError(f"worker {self.worker}: {what} is not the same on all workers")


def precision_policy(precision: Precision, gpus: Sequence[Any]) -> str:
    """Keras' policy for a choice and the GPUs that there are.

    Parameters
    ----------
    precision : {'auto', 'float32', 'mixed_bfloat16', 'mixed_float16'}
    gpus : sequence of mapping
        ``compute_capability`` of each, as TensorFlow says it.

    Examples
    --------
    >>> precision_policy("auto", [])
    'float32'
    >>> precision_policy("auto", [{"compute_capability": (9, 0)}])
    'mixed_bfloat16'
    >>> precision_policy("auto", [{"compute_capability": (7, 5)}])
    'mixed_float16'
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision is {precision}, allowed are {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    capability = min((tuple(gpu.get("compute_capability", (0, 0))) for gpu in gpus), default=(0, 0))
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"


def _worker_of(text: str) -> tuple[int, dict[str, Any]]:
    """Number of this worker, and the configuration, checked."""
    where = "TF_CONFIG"
    if not text.lstrip().startswith("{"):
        where = text
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({error.strerror})") from None
    try:
        config = json.loads(text)
        addresses = config["cluster"]["worker"]
        task = config["task"]
        index = int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where}: not a configuration of workers ({error!r}); needed is "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    strange = sorted(set(config["cluster"]) - {"worker"})
    if strange or task.get("type") != "worker":
        raise UserError(f"{where}: task {strange[0] if strange else task.get('type')} is not known, allowed is worker")
    if not isinstance(addresses, list) or not all(isinstance(a, str) and ":" in a for a in addresses):
        raise UserError(f"{where}: workers are {addresses}, needed is a list of host:port")
    if not 0 <= index < len(addresses):
        raise UserError(f"{where}: index is {index}, allowed are 0 to {len(addresses) - 1}")
    return index, config
