"""The foreign table route_thresholds: a route's examples to the threshold that fits them best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinydancer.embeddings.base import Vectors
from tinydancer.errors import InvalidInput, NotFound, NotReady
from tinydancer.neural.thresholds import Costs, FittedThreshold, fit_threshold
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer_fdw.contract import ROUTE_THRESHOLDS
from tinydancer_fdw.frames import Input, Row

DIGITS = 6

# The route and its fitted threshold.
Answer = tuple[str, FittedThreshold]


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each route."""
    for question in questions(ROUTE_THRESHOLDS, inputs, context.snapshot.settings):
        cells = {
            **echoes(question, ROUTE_THRESHOLDS),
            "route": lambda answer: answer[0],
            "threshold": lambda answer: text.double(round(answer[1].threshold, DIGITS)),
            "precision": lambda answer: text.double(round(answer[1].precision, DIGITS)),
            "recall": lambda answer: text.double(round(answer[1].recall, DIGITS)),
            "f1": lambda answer: text.double(round(answer[1].f1, DIGITS)),
            "model": constant(context.embedder.model),
        }
        answers = ((route, _fit(context, question, route)) for route in question.texts)
        yield from rows(answers, cells, columns)


def _fit(context: Context, question: Question, route: str) -> FittedThreshold:
    vectors = _vectors(context, route)

    def similarities(column: str) -> list[float]:
        requests = question.names(column)
        if not requests:
            raise InvalidInput(
                f"{column} is empty: there is nothing to fit the threshold of route {route!r} on",
                hint="Give an array of requests that match, and one of requests that do not.",
            )
        found: list[float] = (context.embedder.embed(requests) @ vectors.T).max(axis=1).tolist()
        return found

    return fit_threshold(similarities("positives"), similarities("negatives"), _costs(question))


def _costs(question: Question) -> Costs | None:
    wrong, missed = question.number("wrong_match_cost"), question.number("missed_match_cost")
    if wrong is None and missed is None:
        return None
    if wrong is None or missed is None:
        raise InvalidInput(
            "one of wrong_match_cost and missed_match_cost is missing",
            hint="Give both, or neither to maximise F1.",
        )
    return Costs(wrong, missed)


def _vectors(context: Context, name: str) -> Vectors:
    """The vectors of a route: its own and its utterances'."""
    routes = context.snapshot.routes
    if routes.searched_elsewhere:
        raise NotReady(
            f"the vectors of {len(routes)} routes are kept in the database, not in the engine",
            hint="Fit with UPDATE tinydancer.settings SET route_index = 'exact'.",
        )
    for place, route in enumerate(routes.routes):
        if route.name == name:
            ends = [*routes.starts[1:].tolist(), len(routes.vectors)]
            return routes.vectors[routes.starts[place] : ends[place]]
    raise NotFound(
        f"there is no active route {name!r}",
        hint="ruvector_list_routes() shows those there are; one that is not committed is not seen.",
    )
