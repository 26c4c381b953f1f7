import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.agents.cost import cost, output_tokens, output_tokens_sources
from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable


def table(*agents: tuple[Prices, Performance]) -> AgentTable:
    found = [
        Agent(f"agent-{at}", "llm", (), prices, performance)
        for at, (prices, performance) in enumerate(agents)
    ]
    return AgentTable.build(found, np.zeros((len(found), 2), np.float32))


def test_every_kind_of_price_adds_to_the_cost_of_a_request() -> None:
    # 200 tokens in, 500 out, 3 seconds: 0.2 * 0.01 + 0.5 * 0.03 + 0.001 + 3 * 0.0002
    agents = table((Prices(0.01, 0.03, 0.001, 0.0002), Performance(3000.0, 0.9)))
    found = cost(agents.prices, np.array([[200]]), np.array([500.0]), agents.latency_ms)
    assert found.tolist() == [[0.0186]]


def test_costs_are_of_every_request_and_every_agent() -> None:
    agents = table(
        (Prices(per_1k_input_tokens=1.0), Performance(1.0, 0.5)),
        (Prices(per_call=0.25), Performance(1.0, 0.5)),
    )
    tokens = np.array([[10], [2000]])
    found = cost(agents.prices, tokens, np.zeros(2), agents.latency_ms)
    assert found.tolist() == [[0.01, 0.25], [2.0, 0.25]]


def test_money_is_rounded_to_a_billionth() -> None:
    agents = table((Prices(per_1k_input_tokens=0.001), Performance(1.0, 0.5)))
    found = cost(agents.prices, np.array([[1]]), np.zeros(1), agents.latency_ms)
    assert found.tolist() == [[0.000001]]
    third = table((Prices(per_call=1 / 3), Performance(1.0, 0.5)))
    assert cost(third.prices, np.array([[1]]), np.zeros(1), third.latency_ms).item() == 0.333333333


def test_the_length_of_an_answer_is_the_callers_else_the_agents_else_the_default() -> None:
    agents = table(
        (Prices(), Performance(1.0, 0.5)),
        (Prices(), Performance(1.0, 0.5, output_tokens=70.5, outcomes=2)),
    )
    assert output_tokens(agents, None, 256).tolist() == [256.0, 70.5]
    assert output_tokens(agents, 10, 256).tolist() == [10.0, 10.0]
    assert output_tokens_sources(agents, None) == ("default", "history")
    assert output_tokens_sources(agents, 10) == ("request", "request")


@given(
    tokens=st.integers(0, 10**6),
    more=st.integers(0, 10**6),
    prices=st.tuples(*[st.floats(0, 100)] * 4),
)
def test_more_tokens_never_cost_less(
    tokens: int, more: int, prices: tuple[float, float, float, float]
) -> None:
    agents = table((Prices(*prices), Performance(100.0, 0.5)))
    few = cost(agents.prices, np.array([[tokens]]), np.array([100.0]), agents.latency_ms)
    many = cost(agents.prices, np.array([[tokens + more]]), np.array([100.0]), agents.latency_ms)
    assert many.item() >= few.item() >= 0
