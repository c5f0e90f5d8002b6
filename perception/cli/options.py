"""Options that several commands share, and how they print."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Data = Annotated[Path, typer.Option("--data", help="Folder of the data set (holds v1.0-... and samples/).", show_default=False)]
Version = Annotated[
    str | None, typer.Option("--version", help="Version folder; needed where the data set has several.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.", show_default=False)]

# Tokens and paths may hold what rich takes for markup or emoji: [x], :car:
messages = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def tell(text: str) -> None:
    """One line about what is going on, to stderr."""
    messages.print(text, markup=False)


def printer() -> Console:
    """Where results are printed; as wide as the text where it goes to a file."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if os.isatty(1) else 160)


@contextmanager
def progress(what: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """`advance(name, done, total)`: a bar with rate and remaining time on a terminal, a plain line now and then elsewhere.

    total  None where it is not known
    """
    if not messages.is_terminal:
        yield lambda name, done, total: tell(f"{what} {done}/{total or '?'} {name}") if _is_worth_a_line(done, total) else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def advance(name: str, done: int, total: int | None) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "", description=f"{what} {name}")

        yield advance


def _is_worth_a_line(done: int, total: int | None) -> bool:
    """Ten lines in all; a line each time the number has doubled where the end is not known."""
    if total is None:
        return done & (done - 1) == 0
    return done == total or done % max(total // 10, 1) == 0
