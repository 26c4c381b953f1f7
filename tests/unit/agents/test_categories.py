"""The category of a request counts in how well an agent suits it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.agents.categories import Categories, likeness, suit_by_category
from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.neural.default_model import builtin

EMBEDDER = StaticEmbedder.builtin()


def table(**capabilities: tuple[str, ...]) -> AgentTable:
    agents = [
        Agent(name, "llm", listed, Prices(), Performance(1.0, 0.5))
        for name, listed in capabilities.items()
    ]
    return AgentTable.build(agents, EMBEDDER.embed([agent.text for agent in agents]))


def test_a_category_is_nearest_to_the_agent_that_is_capable_of_it() -> None:
    agents = table(coder=("programming", "debugging"), desk=("customer support", "refunds"))
    near = likeness(("code", "support"), agents, EMBEDDER.embed)
    assert near.shape == (2, 2)
    assert near.argmax(axis=1).tolist() == [0, 1]


def test_the_names_of_categories_are_embedded_once_for_a_table_of_agents() -> None:
    agents, asked = table(a=("x",)), []

    def embed(texts):
        asked.append(list(texts))
        return EMBEDDER.embed(texts)

    likeness(("data_analysis", "small-talk"), agents, embed)
    likeness(("data_analysis", "small-talk"), agents, embed)
    assert asked == [["data analysis", "small talk"]]
    # when another classifier is in use, its names are embedded
    likeness(("billing",), agents, embed)
    assert asked[1:] == [["billing"]]


def test_the_share_is_what_the_category_counts() -> None:
    # given a request that is code with three quarters, and agents near to it by text or by kind
    categories = Categories("m", ("code", "support"), np.array([[0.75, 0.25]], np.float32))
    near = np.array([[0.8, 0.0], [0.0, 0.4]], np.float32)
    similarity = np.array([[0.1, 0.5]])
    assert suit_by_category(similarity, categories, near, 0.0).tolist() == [[0.1, 0.5]]
    assert suit_by_category(similarity, categories, near, 1.0).tolist() == [
        pytest.approx([0.6, 0.1], abs=1e-6)
    ]
    assert suit_by_category(similarity, categories, near, 0.5).tolist() == [
        pytest.approx([0.35, 0.3], abs=1e-6)
    ]
    assert categories.likeliest(0) == ("code", 0.75)


@given(st.lists(st.text(max_size=60), min_size=2, max_size=40))
def test_a_request_gets_the_same_figures_alone_and_in_a_batch(texts: list[str]) -> None:
    classifier, vectors = builtin(), EMBEDDER.embed(texts)
    together = classifier.probabilities(vectors, texts)
    alone = [
        classifier.probabilities(vectors[at : at + 1], texts[at : at + 1])
        for at in range(len(texts))
    ]
    assert np.array_equal(together, np.concatenate(alone))
    scores = classifier.score(vectors, texts)
    assert np.array_equal(scores.probabilities, together)
