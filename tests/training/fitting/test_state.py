"""A state comes back as it was, or says in one line that it is none."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from edge_app.errors import UserError
from training.fitting.disk import disk_errors, require_free, write_atomically
from training.fitting.results_folder import ResultsFolder
from training.fitting.state import TeachingState, differing


def a_state(epoch: int = 3) -> TeachingState:
    rng = np.random.default_rng(1)
    rng.random(5)
    return TeachingState(
        epoch=epoch,
        network=[np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.uint32)],
        optimizers=[np.float32(0.5) * np.ones(3, np.float32), np.array(7, np.int64)],
        generator=rng.bit_generator.state,
        identity={"batch": 64, "stages": [[0.0, 1.0]]},
        history=[{"epoch": 1, "loss": 0.123456789012345, "validation_loss": None}],
        best=[np.zeros((2, 3), np.float32)],
        best_epoch=1,
        waited=2,
    )


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = a_state()
    state.save(tmp_path / "deep" / "state.npz")
    found = TeachingState.load(tmp_path / "deep" / "state.npz")
    assert found is not None
    for name in ("network", "optimizers", "best"):
        for a, b in zip(getattr(state, name), getattr(found, name), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
    assert found.history == state.history
    assert (found.epoch, found.best_epoch, found.waited, found.stopped) == (3, 1, 2, False)
    first, second = np.random.default_rng(), np.random.default_rng()
    first.bit_generator.state, second.bit_generator.state = state.generator, found.generator
    assert np.array_equal(first.random(9), second.random(9))
    assert os.listdir(tmp_path / "deep") == ["state.npz"]


def test_no_state_is_none_and_half_a_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    assert TeachingState.load(path) is None
    a_state().save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match="not the state of a training"):
        TeachingState.load(path)


def test_what_differs_is_named() -> None:
    assert differing({"batch": 32, "seed": 1}, {"batch": 64, "seed": 1}) == ["batch 32, not 64"]
    assert differing({"stages": [[0, 1]]}, {"stages": ((0, 1),)}) == []


def test_a_failed_write_leaves_the_old_file_whole_and_no_rest(tmp_path: Path) -> None:
    write_atomically(tmp_path / "log.csv", b"old")
    (tmp_path / "folder.csv").mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "folder.csv", b"new")
    assert (tmp_path / "log.csv").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["folder.csv", "log.csv"]


def test_too_little_room_is_said_before_the_work(tmp_path: Path) -> None:
    require_free(tmp_path / "not" / "there", 1)
    with pytest.raises(UserError, match=r"MB free on its disk, needed are 1000000000000\.0 MB"):
        require_free(tmp_path, 10**18)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the disk is full"), disk_errors(tmp_path):  # noqa: SIM117
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")
    with pytest.raises(OSError, match="other"), disk_errors(tmp_path):
        raise OSError(errno.EINVAL, "other")


def test_results_are_kept_and_another_plan_is_refused(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"value": 7}

    folder = ResultsFolder(tmp_path / "grid", {"epochs": 3})
    assert folder.piece("a", make) == folder.piece("a", make) == {"value": 7}
    assert ResultsFolder(tmp_path / "grid", {"epochs": 3}).piece("a", make) == {"value": 7}
    assert len(made) == 1
    with pytest.raises(UserError, match=r"another plan .epochs 3, not 4."):
        ResultsFolder(tmp_path / "grid", {"epochs": 4})
    ResultsFolder(tmp_path / "grid", {"epochs": 4}, restart=True).piece("a", make)
    assert len(made) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        ResultsFolder(tmp_path / "other", {}, restart=True)
