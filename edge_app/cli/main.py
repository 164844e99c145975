"""``edge-app``: the commands, loaded only when they are called."""

import importlib
import logging
import sys
from typing import Final

import click

from edge_app import __version__
from edge_app.errors import UserError

__all__ = ["edge_app", "main"]

COMMANDS: Final = {
    "calibrate": (
        "edge_app.cli.calibrate",
        "Calibrate with bead standards: wizard, or one command; writes a certificate.",
    ),
    "verify": ("edge_app.cli.verify", "Check a run record, a signed report, or the system with blank and beads."),
    "run": ("edge_app.cli.run", "Capture, segment, classify and count; publish histograms; keep a run record."),
    "demo": ("edge_app.cli.demo", "A simulated flow cell with a live histogram."),
    "watch": ("edge_app.cli.watch", "Live view of any device, as an MQTT subscriber."),
    "classify": ("edge_app.cli.classify", "Classify particle pictures cut by another instrument."),
    "reanalyse": (
        "edge_app.cli.reanalyse",
        "Analyse the frames of a run again: a new, linked record and the difference.",
    ),
    "report": ("edge_app.cli.report", "Make the report of a run: one HTML file, PDF too."),
    "compare": ("edge_app.cli.compare", "Compare two lots or instruments: effect, p-value, composition; HTML and PDF."),
    "export": ("edge_app.cli.export", "Write particles, windows or histogram of a run to a file."),
    "bench": ("edge_app.cli.bench", "Measure how many particles per minute this machine manages."),
    "doctor": ("edge_app.cli.doctor", "Say what this machine has: back ends, camera, broker, disk, clock."),
    "config": ("edge_app.cli.config", "Write, check or show the settings."),
}


class LazyGroup(click.Group):
    """Imports a command's module when it is called, so that ``--help`` and start-up stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of a user's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-app")
@click.option("-v", "--verbose", is_flag=True, help="Log what the libraries say, to stderr.")
def edge_app(verbose: bool) -> None:
    """Particle imaging beside a Micro-Flow Imaging unit.

    Captures flow-cell frames, finds, sizes, classifies and counts every particle, and publishes size and class
    histograms over MQTT.

    Example: edge-app run "sim:?concentration=175000&seed=1" --out runs/first --live
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(name)s: %(message)s")


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    try:
        # Without its standalone mode click hands an exit code back instead of ending with it.
        sys.exit(edge_app.main(standalone_mode=False) or 0)
    except UserError as error:
        click.echo(f"edge-app: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("edge-app: stopped", err=True)
        sys.exit(130)
