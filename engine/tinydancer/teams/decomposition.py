"""A request taken apart: the pieces of work in it, and the capability that each calls for.

By rule, so that the same request always comes apart in the same way and each piece can say why it
is one: sentences and list items, words of order ('then', 'after that'), and verbs that name an
action ('build and deploy X' is 'build X' and 'deploy X'). The capability of a piece is the nearest
by meaning among those that the agents list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.cosine import cosines

MOST_CHARACTERS = 20_000
MOST_PARTS = 64
DIGITS = 6

_ACTIONS = """
    add analyse analyze annotate answer apply approve archive arrange assess audit automate backup
    benchmark book brainstorm build calculate categorise categorize check classify clean code
    collect compare compile compose compress compute configure convert correct create debug decide
    define deploy describe design detect develop diagnose document download draft draw edit
    estimate evaluate examine execute explain explore export extract fetch file filter find fix
    forecast format gather generate group host identify illustrate implement import improve index
    inspect install integrate interpret investigate label launch list load locate log maintain make
    measure merge migrate model monitor negotiate normalise normalize notify optimise optimize
    order organise organize outline parse plan plot post predict prepare present print prioritise
    prioritize process produce profile program proofread propose prove provision publish query rank
    rate recommend record refactor release remove rename render reply report research resolve
    respond restore retrieve review revise rewrite run save schedule score scrape search secure
    select send ship simplify simulate sketch solve sort specify store style submit suggest
    summarise summarize synthesise synthesize tag test track train transcribe transform translate
    triage tune update upgrade upload validate verify visualise visualize write
    """
ACTIONS = frozenset(_ACTIONS.split())
"""Verbs that a piece of work begins with."""

_SENTENCE = re.compile(r"(?<=[^\s\d][.!?])\s+(?=\S)|\s*;\s*|\s*\n+\s*")
_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.)]|\(?[a-z][.)])\s+")
_ORDER = re.compile(
    r"[,;]?\s*\b(?:and\s+then|then|after\s+that|after\s+which|afterwards|followed\s+by|next|"
    r"finally|lastly)\b[,:]?\s*",
    re.IGNORECASE,
)
_JOIN = re.compile(r"\s*,\s*(?:and\s+|&\s*)?|\s+and\s+|\s*&\s*", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")
_POLITE = re.compile(
    r"^(?:(?:please|kindly|also|first|firstly|second|secondly|third|thirdly)\b[,:]?\s*|"
    r"(?:can|could|would|will)\s+you\s+|i\s+(?:want|need|would\s+like)\s+(?:you\s+)?to\s+)+",
    re.IGNORECASE,
)
_BACKWARD = re.compile(r"\b(?:it|its|them|their|they|this|that|these|those|result|results)\b", re.I)


@dataclass(frozen=True)
class Part:
    """One piece of work. reason: why it is one. depends: it builds on the piece before.

    capability: the nearest that any agent lists, None where no agent lists any; similarity: its
    cosine with the text, or 1 where the text names it.
    """

    text: str
    reason: str
    depends: bool
    capability: str | None = None
    similarity: float = 0.0


def split_request(request: str) -> tuple[Part, ...]:
    """The pieces in the order of the text; the request itself where it does not come apart."""
    parts: list[Part] = []
    for sentence in _SENTENCE.split(request[:MOST_CHARACTERS]):
        listed = _BULLET.match(sentence) is not None
        body = _BULLET.sub("", sentence).strip()
        if not _WORD.search(body):
            continue
        reason = "item of a list" if listed else "sentence"
        for number, step in enumerate(piece for piece in _ORDER.split(body) if piece.strip()):
            ordered = number > 0 or _ORDER.match(body) is not None
            parts += _actions(step.strip(" ,.:"), "word of order" if ordered else reason, ordered)
    if len(parts) < 2:
        return (Part(request.strip(), "the whole request", False),)
    kept = [_settled(part, first=number == 0) for number, part in enumerate(parts[:MOST_PARTS])]
    if len(parts) > MOST_PARTS:
        rest = "; ".join(part.text for part in parts[MOST_PARTS - 1 :])
        kept[-1] = replace(kept[-1], text=rest, reason="all that follows")
    return tuple(kept)


def assign_capabilities(
    parts: Sequence[Part], capabilities: Sequence[str], embedder: Embedder
) -> tuple[Part, ...]:
    """The same parts with the capability that each calls for.

    One that the text names by its words goes first, then the nearest by cosine; ties by name.
    """
    if not capabilities or not parts:
        return tuple(parts)
    names = sorted(capabilities)
    vectors = embedder.embed([*(part.text for part in parts), *names])
    near = cosines(vectors[: len(parts)], vectors[len(parts) :]).astype(np.float64).round(DIGITS)
    found = []
    for part, row in zip(parts, near, strict=True):
        words = set(_WORD.findall(part.text.lower()))
        named = np.array([set(_WORD.findall(name.lower())) <= words for name in names])
        similarity = np.where(named, 1.0 + row, row)
        best = int(np.argmax(similarity))
        found.append(
            replace(part, capability=names[best], similarity=min(1.0, float(similarity[best])))
        )
    return tuple(found)


def exactly(
    parts: Sequence[Part],
    count: int,
    request: str,
    capabilities: Sequence[str],
    embedder: Embedder,
) -> tuple[Part, ...]:
    """`count` parts: neighbours most alike are joined, or further capabilities are added.

    What is added is the whole request seen through a capability that no part calls for yet, the
    nearest to the request first; where there is none left, the whole request as a review.
    """
    fitted = list(parts)
    while len(fitted) > count:
        at = _most_alike(fitted, embedder)
        first, second = fitted[at], fitted[at + 1]
        fitted[at : at + 2] = [
            replace(first, text=f"{first.text}; {second.text}", reason="neighbours joined")
        ]
    taken = {part.capability for part in fitted}
    spare = sorted(name for name in capabilities if name not in taken)
    if len(fitted) < count and spare:
        vectors = embedder.embed([request, *spare])
        near = cosines(vectors[:1], vectors[1:])[0].astype(np.float64).round(DIGITS)
        for position in np.argsort(-near, kind="stable")[: count - len(fitted)].tolist():
            name = spare[position]
            reason = f"the whole request calls for {name}"
            fitted.append(Part(request, reason, True, name, float(near[position])))
    while len(fitted) < count:
        fitted.append(Part(request, "no further piece found: a review of the whole", True))
    return tuple(fitted)


def independent(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Parts that can run at once: what builds on the piece before is joined to it."""
    groups: list[Part] = []
    for part in parts:
        if part.depends and groups:
            joined = f"{groups[-1].text}; {part.text}"
            groups[-1] = replace(groups[-1], text=joined, reason="joined with what builds on it")
        else:
            groups.append(part)
    return tuple(groups)


def _actions(clause: str, reason: str, depends: bool) -> list[Part]:
    """A clause as one part for each verb of action at the head of its pieces."""
    clause = _POLITE.sub("", clause).strip()
    if not clause:
        return []
    pieces = _JOIN.split(clause)
    cuts = [number for number, piece in enumerate(pieces) if _action_of(piece)]
    if len(cuts) < 2 or cuts[0] != 0:
        return [Part(clause, reason, depends)]
    spans = _spans(clause, cuts)
    parts: list[Part] = []
    waiting: list[str] = []
    for span in spans:
        if len(_WORD.findall(span)) == 1:
            # A bare verb shares the object of the next piece that has one.
            waiting.append(span)
            continue
        verb = _action_of(span)
        shared = span[len(verb) :].strip()
        for bare in waiting:
            why = f"verb {bare.lower()!r}, object shared with {verb!r}"
            parts.append(Part(f"{bare} {shared}", why, depends or bool(parts)))
        waiting = []
        parts.append(Part(span, f"verb {verb.lower()!r}", depends or bool(parts)))
    parts += [Part(bare, f"verb {bare.lower()!r}", depends or bool(parts)) for bare in waiting]
    # Verbs with objects of their own, joined by 'and', may run at once unless one points back.
    if not any("shared" in part.reason for part in parts):
        parts = [
            part if number == 0 else replace(part, depends=depends)
            for number, part in enumerate(parts)
        ]
    return parts


def _spans(clause: str, cuts: Sequence[int]) -> list[str]:
    """The clause cut before the pieces whose numbers are given; what joins them is dropped."""
    joins = [match.span() for match in _JOIN.finditer(clause)]
    starts = [0, *(joins[cut - 1][1] for cut in cuts[1:])]
    ends = [*(joins[cut - 1][0] for cut in cuts[1:]), len(clause)]
    return [clause[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _action_of(piece: str) -> str:
    """The verb of action that a piece begins with, or ''."""
    word = _WORD.match(piece.strip())
    return word[0] if word and word[0].lower() in ACTIONS else ""


def _settled(part: Part, *, first: bool) -> Part:
    return replace(part, depends=not first and (part.depends or bool(_BACKWARD.search(part.text))))


def _most_alike(parts: Sequence[Part], embedder: Embedder) -> int:
    vectors = embedder.embed([part.text for part in parts])
    near = np.einsum("nd,nd->n", vectors[:-1], vectors[1:]).astype(np.float64).round(DIGITS)
    return int(np.argmax(near))
