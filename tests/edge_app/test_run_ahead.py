import threading
import time

import pytest

from edge_app.run_ahead import RunAhead


def test_order_is_kept() -> None:
    assert list(RunAhead(iter(range(500)), depth=3, name="t")) == list(range(500))


def test_batches_hold_every_item_once_in_order() -> None:
    got = [item for batch in RunAhead(iter(range(500)), depth=7, name="t").batches(most=4) for item in batch]
    assert got == list(range(500))


def test_error_comes_after_the_items_before_it() -> None:
    def stage():
        yield 1
        yield 2
        raise KeyError("broken")

    items = iter(RunAhead(stage(), depth=2, name="t"))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="broken"):
        next(items)


def test_depth_bounds_what_runs_ahead() -> None:
    made = []

    def stage():
        for i in range(100):
            made.append(i)
            yield i

    ahead = RunAhead(stage(), depth=3, name="t")
    time.sleep(0.1)
    assert len(made) <= 4  # three waiting, one in hand
    ahead.close()


def test_closing_ends_the_thread_and_the_stage() -> None:
    closed = threading.Event()

    def stage():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = RunAhead(stage(), depth=2, name="endless")
    for _ in ahead:
        break
    ahead.close()
    assert closed.is_set()
    assert not any(t.name == "endless" for t in threading.enumerate())
