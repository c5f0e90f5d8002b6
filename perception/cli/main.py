"""The `perception` command: registers the commands and turns expected errors into one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

import perception
from perception.cli.checkpoint import checkpoint
from perception.cli.detect import detect
from perception.cli.doctor import doctor
from perception.cli.evaluate import evaluate
from perception.cli.instances import instances
from perception.cli.object_bank import object_bank
from perception.cli.run import run as run_command
from perception.cli.simulate import simulate
from perception.cli.track import track
from perception.cli.train import train
from perception.cli.validate import validate
from perception.cli.view import view
from perception.core.errors import PerceptionError, UsageError

app = typer.Typer(
    name="perception",
    help="Recorded drives in; tracked 3D objects out, judged by the official metrics, in files that a planner reads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (doctor, simulate, run_command, detect, track, evaluate, validate, view, train, object_bank, instances):
    app.command()(command)
app.add_typer(checkpoint)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perception {perception.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Recorded drives in; tracked 3D objects out, judged by the official metrics, in files that a planner reads."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns 0 done, 1 some failed, 2 wrong use, 3 bad data, 4 bad checkpoint; 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return report_errors(lambda: app(arguments, prog_name="perception"), debug="--debug" in arguments)


def report_errors(command: Callable[[], object], *, debug: bool = False) -> int:
    """Run a command and return its exit code; an expected error becomes one line (with `debug` its traceback too)."""
    try:
        command()  # typer ends it with SystemExit, 2 for wrong use
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0
    except PerceptionError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:  # `perception validate ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder that cannot be made or written to, a full disk
        if debug:
            traceback.print_exc()
        print(f"error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return UsageError.exit_code
    return 0


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main())
