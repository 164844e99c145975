"""``edge-app``, and ``python -m edge_app``."""

import sys

from edge_app.interrupt import Interrupted, take_interrupts

__all__ = ["main"]


def main() -> None:
    """Entry point; interrupts are taken before the first library is loaded."""
    take_interrupts()
    try:
        from edge_app.cli.main import main as command

        command()
    except Interrupted:
        print("edge-app: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
