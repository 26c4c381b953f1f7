"""What a command shows on stderr while it works; stdout is for its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """A function to call at each step's begin: a spinner on a terminal, a line a step elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    began = time.monotonic()
    if not console.is_terminal:
        yield lambda step: click.echo(f"{step} ...", err=True)
        return
    current: list[str] = []
    with console.status("") as status:

        def finish() -> None:
            nonlocal began
            for step in current:
                console.print(f"[green]✓[/] {step} [dim]{time.monotonic() - began:.1f} s[/]")
            current.clear()
            began = time.monotonic()

        def begin(step: str) -> None:
            finish()
            current.append(step)
            status.update(f"{step} ...")

        yield begin
        finish()


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with how much is done and of how much: a bar, or a line every 10%."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        shown = -1

        def line(done: int, total: int) -> None:
            nonlocal shown
            tenth = 10 * done // total if total else 10
            if tenth > shown:
                shown = tenth
                click.echo(f"{what}: {done:,} of {total:,} {unit}", err=True)

        yield line
        return
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
