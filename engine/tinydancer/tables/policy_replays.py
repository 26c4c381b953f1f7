"""The foreign table policy_replays: what another policy would have achieved, by the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tinydancer.errors import NotReady
from tinydancer.learning.hindsight import Hindsight, look_back, read_log
from tinydancer.learning.replay import Estimate
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer_fdw.contract import POLICY_REPLAYS
from tinydancer_fdw.frames import Input, Row

DEFAULT_TIME_RANGE = "30 days"
DIGITS = 9

Cell = Callable[[Hindsight], "str | None"]


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each policy and metric."""
    asked = questions(POLICY_REPLAYS, inputs, context.snapshot.settings)
    if context.outcomes is None:
        raise NotReady("this engine keeps no decisions to look back on")
    for question in asked:
        log = read_log(context.outcomes(question.text("time_range") or DEFAULT_TIME_RANGE))
        for policy in question.texts:
            yield from rows(look_back(log, policy), _cells(question, policy), columns)


def _cells(question: Question, policy: str) -> Mapping[str, Cell]:
    cells: dict[str, Cell] = {**echoes(question, POLICY_REPLAYS)}
    cells.update(
        policy=constant(policy),
        metric=lambda found: found.metric,
        decisions=lambda found: str(found.replay.rows),
        effective_sample_size=lambda found: _number(found.replay.effective_sample_size),
        mean_weight=lambda found: _number(found.replay.mean_weight),
        choices=lambda found: text.jsonb(
            {name: round(share, DIGITS) for name, share in found.choices.items()}
        ),
    )
    for name in ("logged", "ips", "snips", "dr"):
        estimate = _estimate(name)
        cells[name] = _end(estimate, "value")
        cells[f"{name}_low"] = _end(estimate, "low")
        cells[f"{name}_high"] = _end(estimate, "high")
    return cells


def _estimate(name: str) -> Callable[[Hindsight], Estimate]:
    return lambda found: getattr(found.replay, name)


def _end(estimate: Callable[[Hindsight], Estimate], end: str) -> Cell:
    return lambda found: _number(getattr(estimate(found), end))


def _number(value: float) -> str:
    return text.double(round(value, DIGITS))
