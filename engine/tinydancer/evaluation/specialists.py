"""Whether a request finds its specialist, by the likeness of texts and by its category.

Thirteen agents, each for one of the default model's categories and with capabilities that somebody
would give it, none of them the category's own name where there is another; the requests are the
hand-written ones of data/requests.json. The default of settings.category_share was chosen by
looking at these figures, which hardly differ from 0.5 to 0.8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinydancer.agents.categories import Categories, likeness, suit_by_category
from tinydancer.agents.fit import similarity
from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.base import Embedder
from tinydancer.neural.default_model import builtin

SPECIALISTS = {
    "action": ("scheduling", "reminders", "smart-home", "bookings"),
    "classification": ("labelling", "moderation", "triage"),
    "code": ("programming", "debugging", "code-review"),
    "conversation": ("chat", "small-talk"),
    "data_analysis": ("statistics", "spreadsheets", "charts"),
    "extraction": ("information-extraction", "structured-output", "parsing"),
    "mathematics": ("mathematics", "proofs", "calculus"),
    "question_answering": ("search", "facts", "current-events"),
    "reasoning": ("logic", "step-by-step-analysis", "planning"),
    "summarization": ("summarisation", "meeting-notes", "abstracts"),
    "support": ("customer-support", "refunds", "complaints", "account-help"),
    "translation": ("languages", "translation", "localization"),
    "writing": ("creative-writing", "blog-posts", "emails"),
}
SHARES = (0.0, 0.35, 0.5, 0.65, 0.8, 1.0)


def found(embedder: Embedder, texts: Sequence[str], labels: Sequence[str]) -> dict[float, float]:
    """For each share of the category, the percentage of texts whose specialist suits them best."""
    agents = [
        Agent(name, "tool", capabilities, Prices(), Performance(0.0, 0.5))
        for name, capabilities in SPECIALISTS.items()
    ]
    table = AgentTable.build(agents, embedder.embed([agent.text for agent in agents]))
    right = np.array([table.positions[label] for label in labels])
    vectors, classifier = embedder.embed(texts), builtin()
    by_text = similarity(vectors, table)
    categories = Categories("default", classifier.names, classifier.probabilities(vectors, texts))
    near = likeness(classifier.names, table, embedder.embed)
    suits = {share: suit_by_category(by_text, categories, near, share) for share in SHARES}
    return {
        share: 100 * float((values.argmax(axis=1) == right).mean())
        for share, values in suits.items()
    }
