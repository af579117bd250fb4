"""The command line: the only place that prints, and that turns errors into exit codes.

Rooms are imported inside the commands: `edgeprune --help` must answer at once, and torch takes seconds to import.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from edgeprune import __version__
from edgeprune.cli_analyze import analyze_app
from edgeprune.cli_artifacts import reproduce_command, verify_command
from edgeprune.cli_cache import cache_app
from edgeprune.cli_compile import compile_command
from edgeprune.cli_gate import diff_command, gate_command, history_command
from edgeprune.cli_info import doctor_command, methods_command, ops_command, targets_command
from edgeprune.cli_models import evaluate_command, train_command
from edgeprune.cli_plan import plan_command
from edgeprune.errors import EdgepruneError

app = typer.Typer(
    name="edgeprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok; 1 fault in edgeprune (a parity failure too); 2 usage or bad input; 3 budget missed; "
    "4 regression; 5 model not supported; 6 measurement unavailable; 7 untrusted input refused.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeprune {__version__}")
        raise typer.Exit


@app.callback()
def describe_program(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a trained PyTorch CNN and its dataset to a pruned, quantized, verified and measured edge model.

    Start here:  edgeprune train --arch lite --data data.npz -o model.pt,  then  edgeprune compile model.pt
    """


# in the order of --help: what is done first comes first
for name, command in (
    ("plan", plan_command),
    ("compile", compile_command),
    ("gate", gate_command),
    ("diff", diff_command),
    ("history", history_command),
    ("verify", verify_command),
    ("reproduce", reproduce_command),
    ("train", train_command),
    ("evaluate", evaluate_command),
    ("targets", targets_command),
    ("methods", methods_command),
    ("ops", ops_command),
    ("doctor", doctor_command),
):
    app.command(name)(command)
app.add_typer(analyze_app)
app.add_typer(cache_app)


def main() -> None:
    """Entry point: run the command; print one line and end with the documented code where it fails."""
    # TensorFlow's and LiteRT's native libraries log to stderr; set before any of them is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # PyTorch's note on its own speed with even kernels, in the middle of a progress bar
    warnings.filterwarnings("ignore", message="Using padding='same'", category=UserWarning)
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except EdgepruneError as error:
        if debug:
            raise
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.secho("stopped: nothing that was finished before is lost", err=True)
        sys.exit(130)
    except Exception as error:  # the last line of defence: a fault of ours must not end in a traceback
        if debug:
            raise
        typer.secho(
            f"error: a fault in edgeprune: {type(error).__name__}: {error}\n"
            "Please report it with the output of the same command and --debug.",
            err=True,
            fg="red",
        )
        sys.exit(EdgepruneError.exit_code)
