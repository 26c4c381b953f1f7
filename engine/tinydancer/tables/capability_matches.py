"""The foreign table capability_matches: a capability to the agents that have it, or nearly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tinydancer.agents.capabilities import CapabilityMatch, find
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, chunks, questions
from tinydancer.tables.rows import echoes, rows
from tinydancer_fdw.contract import CAPABILITY_MATCHES
from tinydancer_fdw.frames import Input, Row

# The capability asked for, the rank and the match of a row.
Answer = tuple[str, int, CapabilityMatch]
Cell = Callable[[Answer], "str | None"]

DEFAULT_TOP_K = 10
CHUNK = 256


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: the agents for each capability, those that list it first."""
    for question in questions(CAPABILITY_MATCHES, inputs, context.snapshot.settings):
        top_k = question.integer("top_k") or DEFAULT_TOP_K
        cells = _cells(question)
        for texts in chunks(question.texts, limit, CHUNK):
            found = find(texts, context.snapshot.agents, context.embedder, top_k)
            answers = (
                (capability, rank, match)
                for capability, matches in zip(texts, found, strict=True)
                for rank, match in enumerate(matches, 1)
            )
            yield from rows(answers, cells, columns)


def _cells(question: Question) -> Mapping[str, Cell]:
    cells: dict[str, Cell] = {**echoes(question, CAPABILITY_MATCHES)}
    cells.update(
        capability=lambda answer: answer[0],
        rank=lambda answer: str(answer[1]),
        agent_name=lambda answer: answer[2].agent,
        similarity=lambda answer: text.double(answer[2].similarity),
        exact=lambda answer: text.boolean(answer[2].exact),
    )
    return cells
