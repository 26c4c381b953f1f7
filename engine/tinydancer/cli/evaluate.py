"""Figures on data with known answers: eval routing, eval intents, eval requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tinydancer.cli.options import json_option
from tinydancer.cli.progress import steps
from tinydancer.cli.results import figure_table

_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Directory of the data.",
)


@click.group("eval")
def evaluate() -> None:
    """Measure routing and classification on data with known answers."""


@evaluate.command()
@_data_option
@json_option
def routing(data: Path, as_json: bool) -> None:
    """How well the learned quality model routes, on tables of scores (*.jsonl.gz)."""
    from tinydancer.evaluation.routing import run

    with steps() as report:
        results = run(data, progress=report)
    _show([asdict(result) for result in results], as_json)


@evaluate.command()
@_data_option
@json_option
def intents(data: Path, as_json: bool) -> None:
    """How well requests are classified, on folders of intents, full and few-shot, tier by tier.

    Each folder has train, test and, where it has them, valid and oos_*.jsonl.gz. MiniLM and the
    cascade are measured where the model was fetched. It trains for minutes.
    """
    from tinydancer.evaluation.intents import run

    with steps() as report:
        results = run(data, progress=report)
    _show([asdict(result) for result in results], as_json)


@evaluate.command()
@json_option
def requests(as_json: bool) -> None:
    """How well the default classifier knows hand-written requests."""
    from tinydancer.evaluation.requests import run

    with steps() as report:
        report("Classifying")
        results = run()
    _show([asdict(result) for result in results], as_json)


def _show(figures: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Each figure is named by its fields but the last two, `metric` and `value`."""
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = 200
    *names, _, _ = figures[0]
    metrics = list(dict.fromkeys(figure["metric"] for figure in figures))
    rows: dict[tuple[str, ...], dict[str, float | None]] = {}
    for figure in figures:
        key = tuple(str(figure[name]) for name in names)
        rows.setdefault(key, {})[figure["metric"]] = figure["value"]
    header = [*names, *(metric.replace("_", " ") for metric in metrics)]
    cells = [
        [
            *key,
            *("" if (value := found.get(metric)) is None else f"{value:.4g}" for metric in metrics),
        ]
        for key, found in rows.items()
    ]
    console.print(figure_table(header, cells, len(names), console.width))
