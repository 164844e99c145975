"""Writes windows until it is killed, or until its files may not grow any more; tells on stdout which one is committed.

Run by test_crash.py: ``write_until_killed.py FOLDER [LARGEST_FILE_IN_BYTES]``.
"""

import resource
import sys
from pathlib import Path

import numpy as np
from recorded_runs import create, window_content

from edge_app.recording.errors import RecordingError
from edge_app.recording.outgoing import Outgoing


def main() -> None:
    rng = np.random.default_rng(1)
    record = create(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    print("-1", flush=True)
    for seq in range(100_000):
        content = window_content(rng, seq)
        record.commit_window(
            content.window,
            content.particles,
            class_index=content.class_index,
            confidence=content.confidence,
            outgoing=[Outgoing(topic="t", payload={"seq": seq}, kind="histogram", seq=seq)],
        )
        print(seq, flush=True)


if __name__ == "__main__":
    try:
        main()
    except RecordingError as error:
        sys.exit(str(error))
