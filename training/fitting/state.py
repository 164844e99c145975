"""The state of a training at the end of an epoch, in one file: enough to go on as if nothing had happened."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from training.fitting.disk import disk_errors, write_atomically

__all__ = ["TeachingState", "differing"]

_SETS = ("network", "optimizers", "best")


@dataclass(frozen=True, kw_only=True)
class TeachingState:
    """After ``epoch`` whole epochs.

    ``network``: every variable of the network, those of its random draws too; ``optimizers``: moments, running means
    and counts, course by course; ``best``: weights of the best epoch, empty without a validation set; ``generator``:
    state of the generator that draws and turns crops; ``identity``: what the training was started with.
    """

    epoch: int
    network: Sequence[npt.NDArray[Any]]
    optimizers: Sequence[npt.NDArray[Any]]
    generator: Mapping[str, Any]
    identity: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    best: Sequence[npt.NDArray[Any]] = ()
    best_epoch: int = -1
    waited: int = 0
    stopped: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write whole or not at all."""
        arrays = {f"{name}_{k}": np.asarray(v) for name in _SETS for k, v in enumerate(getattr(self, name))}
        plain = {
            "epoch": self.epoch,
            "generator": self.generator,
            "identity": self.identity,
            "history": list(self.history),
            "best_epoch": self.best_epoch,
            "waited": self.waited,
            "stopped": self.stopped,
            "notes": self.notes,
            "lengths": {name: len(getattr(self, name)) for name in _SETS},
        }
        arrays["plain"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        with disk_errors(path):
            write_atomically(path, content.getvalue())

    @staticmethod
    def load(path: Path) -> TeachingState | None:
        """Read; None where there is none.

        Raises
        ------
        UserError
            The file is damaged.
        """
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                plain = json.loads(file["plain"].tobytes())
                lengths = plain.pop("lengths")
                sets: dict[str, Any] = {name: [file[f"{name}_{k}"] for k in range(lengths[name])] for name in _SETS}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: not the state of a training ({error}); --restart begins again without it"
            ) from None
        return TeachingState(**plain, **sets)


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Name what two trainings do not have in common, ``batch 32, not 64`` say."""
    there, here = (json.loads(json.dumps(dict(side))) for side in (found, wanted))
    return [f"{k} {there.get(k)}, not {here.get(k)}" for k in sorted({*there, *here}) if there.get(k) != here.get(k)]
