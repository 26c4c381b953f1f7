import numpy as np

from tinydancer.agents.capabilities import CapabilityMatch, find
from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.static import StaticEmbedder

EMBEDDER = StaticEmbedder.builtin()


def table(**capabilities: tuple[str, ...]) -> AgentTable:
    agents = [
        Agent(name, "llm", listed, Prices(), Performance(1.0, 0.5))
        for name, listed in capabilities.items()
    ]
    return AgentTable.build(agents, np.zeros((len(agents), 2), np.float32))


def test_agents_that_list_the_capability_come_first_and_by_name() -> None:
    agents = table(poet=("poetry",), zoe=("Coding", "math"), adam=("math", "coding"))
    (found,) = find(["coding "], agents, EMBEDDER, 10)
    assert found[:2] == [CapabilityMatch("adam", 1.0, True), CapabilityMatch("zoe", 1.0, True)]
    assert not found[2].exact


def test_a_near_capability_is_found_by_meaning_with_its_similarity() -> None:
    agents = table(chef=("cooking", "baking"), coder=("debugging", "coding"))
    (found,) = find(["programming"], agents, EMBEDDER, 10)
    assert [match.agent for match in found] == ["coder", "chef"]
    assert 1 > found[0].similarity > found[1].similarity
    assert not found[0].exact


def test_the_best_capability_of_an_agent_counts_not_their_mean() -> None:
    agents = table(
        broad=("coding", "cooking", "gardening", "law"), narrow=("cooking", "gardening", "law")
    )
    (found,) = find(["code"], agents, EMBEDDER, 1)
    expected = float((EMBEDDER.embed(["code"]) @ EMBEDDER.embed(["coding"]).T).item())
    assert found[0].agent == "broad"
    assert abs(found[0].similarity - expected) < 1e-5


def test_no_more_than_asked_for_and_none_where_nobody_lists_anything() -> None:
    assert len(find(["x"], table(a=("b",), b=("c",)), EMBEDDER, 1)[0]) == 1
    assert find(["x", "y"], table(a=()), EMBEDDER, 3) == [[], []]


def test_an_agent_without_capabilities_is_not_found() -> None:
    (found,) = find(["law"], table(blank=(), lawyer=("law",)), EMBEDDER, 5)
    assert [match.agent for match in found] == ["lawyer"]
