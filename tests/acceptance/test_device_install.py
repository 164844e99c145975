"""The device side works where TensorFlow does not exist."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

ABSENT = {"tensorflow", "keras", "training", "converters", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ImportError(f"{name} is not part of the device install")

sys.meta_path.insert(0, Refuse())
import pkgutil, importlib
import edge_app
for module in pkgutil.walk_packages(edge_app.__path__, "edge_app."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from edge_app.cli.main import edge_app as command
command.main(
    ["run", "sim:?concentration=60000&seed=1&frames=12", "--out", sys.argv[1], "--mqtt", "off", "--json"],
    standalone_mode=False,
)
"""


def test_every_module_imports_and_the_loop_runs_without_tensorflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run")], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"particles"' in done.stdout
