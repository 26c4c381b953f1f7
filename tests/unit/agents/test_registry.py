import numpy as np
import pytest

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable


def agent(name: str, *capabilities: str, active: bool = True, price: float = 0.0) -> Agent:
    prices = Prices(per_call=price)
    return Agent(name, "llm", capabilities, prices, Performance(100.0, 0.5), active=active)


def test_agents_are_kept_in_the_order_of_their_names_with_their_own_vectors_and_prices() -> None:
    vectors = np.eye(3, dtype=np.float32)
    agents = [agent("c", price=3), agent("a", price=1), agent("B", price=2)]
    table = AgentTable.build(agents, vectors)
    assert table.names == ("B", "a", "c")
    assert table.prices[2].tolist() == [2, 1, 3]
    assert table.embeddings.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert [table.positions[name] for name in table.names] == [0, 1, 2]


def test_an_inactive_agent_is_left_out() -> None:
    table = AgentTable.build([agent("a", active=False), agent("b")], np.eye(2, dtype=np.float32))
    assert table.names == ("b",)
    assert table.embeddings.tolist() == [[0, 1]]


def test_capabilities_are_found_without_regard_to_case_and_outer_space() -> None:
    table = AgentTable.build(
        [agent("a", "Code ", "code"), agent("b", "math", "CODE")], np.eye(2, dtype=np.float32)
    )
    assert table.holders["code"].tolist() == [0, 1]
    assert table.holders["math"].tolist() == [1]


def test_an_unknown_length_of_answers_is_not_a_number() -> None:
    known = Agent("b", "llm", (), Prices(), Performance(1.0, 0.5, output_tokens=70.0, outcomes=3))
    table = AgentTable.build([agent("a"), known], np.eye(2, dtype=np.float32))
    assert np.isnan(table.output_tokens[0])
    assert table.output_tokens[1] == 70.0
    assert table.outcomes.tolist() == [0, 3]


def test_a_table_of_no_agents_has_its_shapes() -> None:
    table = AgentTable.build([], np.zeros((0, 4), np.float32))
    assert len(table) == 0
    assert table.prices.shape == (4, 0)
    assert table.embeddings.shape == (0, 4)


def test_as_many_vectors_as_agents_are_asked_for() -> None:
    with pytest.raises(ValueError, match="1 agents but 2 embeddings"):
        AgentTable.build([agent("a")], np.eye(2, dtype=np.float32))


def test_agents_that_are_measured_anew_are_the_same_agents() -> None:
    table = AgentTable.build([agent("b", "code", price=2), agent("a")], np.eye(2, dtype=np.float32))

    measured = table.measured([Performance(5.0, 0.9, outcomes=1), Performance(7.0, 0.8)])

    assert measured.roster is table.roster
    assert measured.prices is table.prices
    assert measured.latency_ms.tolist() == [5.0, 7.0]
    assert measured.quality.tolist() == [0.9, 0.8]
    assert measured.outcomes.tolist() == [1, 0]
    assert [each.performance.avg_latency_ms for each in measured.agents] == [5.0, 7.0]
    assert table.latency_ms.tolist() == [100.0, 100.0]
