"""``python -m edge_app`` is ``edge-app``."""

from edge_app.cli.main import main

if __name__ == "__main__":
    main()
