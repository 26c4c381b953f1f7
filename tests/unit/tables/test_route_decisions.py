from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.errors import InvalidInput
from tinydancer.explanation import MOST_LISTED
from tinydancer.neural.active import DefaultClassifier
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.semantic_routes.route import Route

if TYPE_CHECKING:
    from .conftest import Engine

FIBONACCI = "Write a Python function to calculate Fibonacci numbers"


def explain(row: dict[str, str | None]) -> dict[str, object]:
    return json.loads(row["explanation"] or "null")


def test_a_request_by_cost_goes_to_the_cheapest_agent(engine: Engine) -> None:
    (row,) = engine.ask("route_decisions", request=FIBONACCI, optimize_for="cost")
    # 11 tokens in and 256 out at 0.00025 a thousand.
    assert row["agent_name"] == "claude-3-haiku"
    assert row["estimated_cost"] == "0.00006675"
    assert row["estimated_latency_ms"] == "400.0"
    assert row["expected_quality"] == row["confidence"] == "0.8"
    assert row["rank"] == "1"
    assert row["score"] == "1.0"
    assert row["reasoning"] == (
        "claude-3-haiku is the cheapest of 3 agents that qualify: "
        "cost 0.00006675, 400 ms, quality 0.80."
    )


def test_inputs_are_echoed_in_every_row_and_null_where_not_given(engine: Engine) -> None:
    rows = engine.ask(
        "route_decisions", request=["a b", "c d"], max_cost="1e0", excluded_agents=["x,y"]
    )
    assert [row["request"] for row in rows] == ["a b", "c d"]
    assert {row["max_cost"] for row in rows} == {"1e0"}
    assert {row["excluded_agents"] for row in rows} == {'{"x,y"}'}
    assert {row["optimize_for"] for row in rows} == {None}


def test_constraints_leave_the_agent_that_satisfies_them_all(engine: Engine) -> None:
    (row,) = engine.ask(
        "route_decisions",
        request="Analyze this complex legal document",
        required_capabilities=["reasoning", "Analysis"],
        max_cost="0.10",
        max_latency_ms="5000",
        min_quality="0.90",
    )
    assert row["agent_name"] == "gpt-4"
    assert (row["reasoning"] or "").startswith("gpt-4 is the only agent that qualifies (2 refused)")


def test_a_request_that_no_agent_suits_has_one_row_that_says_why(engine: Engine) -> None:
    (row,) = engine.ask("route_decisions", request="x", max_cost="0.00001", min_quality="0.9")
    assert row["agent_name"] is None
    assert row["rank"] == "1"
    outputs = ("confidence", "estimated_cost", "estimated_latency_ms", "score", "similarity")
    assert [row[column] for column in outputs] == [None] * 5
    assert row["reasoning"] == (
        "No agent suits: claude-3-haiku costs 0.00006425, over max_cost 0.00001; "
        "code-specialist costs 0.001, over max_cost 0.00001; "
        "gpt-4 costs 0.00771, over max_cost 0.00001."
    )
    refusals = explain(row)["refusals"]
    assert {
        "agent": "gpt-4",
        "constraint": "max_cost",
        "limit": 1e-05,
        "actual": 0.00771,
    } in refusals
    assert {
        "agent": "claude-3-haiku",
        "constraint": "min_quality",
        "limit": 0.9,
        "actual": 0.8,
    } in refusals
    assert explain(row)["counts"] == {
        "candidates": 0,
        "refused": 3,
        "by_constraint": {"max_cost": 3, "min_quality": 1},
    }


@pytest.mark.parametrize(
    ("constraint", "reason"),
    [
        ({"required_capabilities": ["law"]}, "claude-3-haiku lacks 'law'"),
        ({"max_latency_ms": "50"}, "gpt-4 takes 2500 ms, over max_latency_ms 50"),
        ({"min_quality": "0.99"}, "gpt-4 has quality 0.95, under min_quality 0.99"),
        ({"budget_remaining": "0"}, "gpt-4 costs 0.00771, over budget_remaining 0"),
        ({"excluded_agents": ["gpt-4", "claude-3-haiku", "code-specialist"]}, "gpt-4 is excluded"),
    ],
)
def test_every_constraint_names_itself_in_the_reason(
    engine: Engine, constraint: dict[str, str | list[str]], reason: str
) -> None:
    (row,) = engine.ask("route_decisions", request="x", **constraint)
    assert row["agent_name"] is None
    assert reason in (row["reasoning"] or "")


def test_an_excluded_name_that_is_nobodys_is_pointed_out(engine: Engine) -> None:
    (row,) = engine.ask("route_decisions", request="x", excluded_agents=["gpt4", "gpt-4"])
    assert explain(row)["unknown_agents"] == ["gpt4"]
    assert explain(row)["counts"]["by_constraint"] == {"excluded_agents": 1}


def test_without_agents_the_reason_says_how_to_register_one(engine: Engine) -> None:
    engine.agents = ()
    rows = engine.ask("route_decisions", request=["x", "y"], top_k="3")
    assert [row["agent_name"] for row in rows] == [None, None]
    assert "ruvector_register_agent" in (rows[0]["reasoning"] or "")
    assert "once it has committed" in (rows[0]["reasoning"] or "")
    assert explain(rows[0])["candidates"] == []


def test_top_k_ranks_the_agents_best_first(engine: Engine) -> None:
    rows = engine.ask("route_decisions", request="x", optimize_for="latency", top_k="5")
    assert [(row["rank"], row["agent_name"]) for row in rows] == [
        ("1", "code-specialist"),
        ("2", "claude-3-haiku"),
        ("3", "gpt-4"),
    ]
    assert (rows[1]["reasoning"] or "").startswith(
        "claude-3-haiku is number 2 by latency of 3 that qualify"
    )


def test_the_explanation_has_every_candidate_with_its_estimates(engine: Engine) -> None:
    (row,) = engine.ask("route_decisions", request=FIBONACCI)
    found = explain(row)
    assert found["objective"] == "balanced"
    assert found["weights"] == {"cost": 0.25, "latency": 0.15, "quality": 0.35, "fit": 0.25}
    assert found["chosen"] == row["agent_name"]
    assert found["input_tokens"] == 11
    assert found["models"] == {"embedder": engine.embedder.model, "quality": "registered"}
    assert found["truncated"] is False
    candidates = found["candidates"]
    assert [candidate["rank"] for candidate in candidates] == [1, 2, 3]
    assert candidates[0]["score"] == float(row["score"] or "")
    for candidate in candidates:
        assert candidate["quality_is"] == "prior"
        assert candidate["output_tokens_from"] == "default"
        weights = found["weights"].items()
        blend = sum(weight * candidate["parts"][name] for name, weight in weights)
        assert candidate["score"] == pytest.approx(blend, abs=1e-5)


def test_the_explanation_says_what_was_measured_and_where_lengths_come_from(
    engine: Engine,
) -> None:
    performance = Performance(10.0, 0.7, output_tokens=99.0, outcomes=12)
    measured = Agent("veteran", "llm", ("code",), Prices(), performance)
    engine.agents = (measured,)
    (row,) = engine.ask("route_decisions", request="x")
    (candidate,) = explain(row)["candidates"]
    assert (candidate["quality_is"], candidate["outcomes"]) == ("measured", 12)
    assert (candidate["output_tokens"], candidate["output_tokens_from"]) == (99.0, "history")
    (row,) = engine.ask("route_decisions", request="x", expected_output_tokens="7")
    (candidate,) = explain(row)["candidates"]
    assert (candidate["output_tokens"], candidate["output_tokens_from"]) == (7.0, "request")


def test_a_route_to_an_agent_raises_its_fit_and_is_named(engine: Engine) -> None:
    (row,) = engine.ask("route_decisions", request="Please write a poem", optimize_for="quality")
    found = explain(row)["candidates"][0]
    assert found["agent"] == "gpt-4"
    assert found["fit_by_route"] == "poems"
    assert found["fit"] > found["similarity"]
    # The column is the cosine with the agent's capabilities, whatever routes there are.
    assert row["similarity"] == str(found["similarity"])


def test_an_agent_for_the_requests_category_suits_it_without_a_word_in_common(
    engine: Engine,
) -> None:
    # given agents of like price and quality, of which the text alone tells the wrong one
    request = "write property based tests for my date parser"
    listed = {"assistant": ("scheduling", "reminders"), "coder": ("programming", "debugging")}
    engine.agents = tuple(
        replace(engine.agents[0], name=name, capabilities=capabilities)
        for name, capabilities in listed.items()
    )
    (row,) = engine.ask("route_decisions", request=request)
    assert row["agent_name"] == "assistant"
    assert "category" not in explain(row)
    # when a classifier knows that it is about code, then so does the decision, and says so
    engine.classifier = DefaultClassifier()
    engine.settings = replace(engine.settings, category_share=0.65)
    (row,) = engine.ask("route_decisions", request=request)
    found = explain(row)
    assert row["agent_name"] == "coder"
    assert found["category"]["name"] == "code"
    assert 0.5 < found["category"]["probability"] <= 1
    assert found["models"]["classifier"] == "default"
    # and where the category is to count for nothing, the text decides again
    engine.settings = replace(engine.settings, category_share=0.0)
    (row,) = engine.ask("route_decisions", request=request)
    assert row["agent_name"] == "assistant"


def test_a_classifier_that_cannot_be_read_or_of_another_space_leaves_decisions_to_the_text(
    engine: Engine,
) -> None:
    class Damaged:
        name = "damaged"

        @property
        def classifier(self) -> RouteClassifier:
            raise InvalidInput("cut short")

    class Foreign:
        name = "foreign"
        classifier = replace(DefaultClassifier().classifier, space="another")

    (by_text,) = engine.ask("route_decisions", request=FIBONACCI)
    for active in (Damaged(), Foreign()):
        engine.classifier = active
        assert engine.ask("route_decisions", request=FIBONACCI) == [by_text]


def test_a_route_can_turn_a_balanced_decision(engine: Engine) -> None:
    twins = [
        replace(engine.agents[0], name=name, capabilities=("reasoning",))
        for name in ("first", "second")
    ]
    engine.agents, engine.routes = tuple(twins), ()
    (row,) = engine.ask("route_decisions", request="Please write a poem")
    assert row["agent_name"] == "first"
    engine.routes = (Route("poems", "Write a poem", "second"),)
    (row,) = engine.ask("route_decisions", request="Please write a poem")
    assert row["agent_name"] == "second"


def test_the_explanation_of_a_crowd_is_bounded_and_says_so(engine: Engine) -> None:
    engine.agents = tuple(
        Agent(f"a{at:04}", "llm", ("x",), Prices(per_call=at / 100), Performance(1.0, 0.5))
        for at in range(1000)
    )
    (row,) = engine.ask("route_decisions", request="x", max_cost="5.995")
    found = explain(row)
    assert len(found["candidates"]) == 50
    assert len(found["refusals"]) == 50
    assert found["truncated"] is True
    assert found["counts"] == {
        "candidates": 600,
        "refused": 400,
        "by_constraint": {"max_cost": 400},
    }


def test_several_objectives_in_one_scan_decide_each(engine: Engine) -> None:
    rows = engine.ask(
        "route_decisions",
        request=["x", "y"],
        optimize_for=["quality", "cost"],
        columns=["request", "optimize_for", "agent_name"],
    )
    assert [tuple(row.values()) for row in rows] == [
        ("x", "quality", "gpt-4"),
        ("y", "quality", "gpt-4"),
        ("x", "cost", "claude-3-haiku"),
        ("y", "cost", "claude-3-haiku"),
    ]


def test_a_limit_stops_the_work_as_well_as_the_rows(engine: Engine) -> None:
    texts = [f"request {at}" for at in range(5000)]
    rows = engine.ask("route_decisions", request=texts, limit=2, columns=["request", "agent_name"])
    assert [row["request"] for row in rows] == texts[:2]
    assert engine.embedder.embedded == texts[:2]


def test_a_decision_by_cost_embeds_nothing(engine: Engine) -> None:
    engine.ask("route_decisions", request="x", optimize_for="cost", columns=["agent_name"])
    assert engine.embedder.embedded == []


def test_no_columns_are_rows_all_the_same(engine: Engine) -> None:
    assert engine.ask("route_decisions", request=["x", "y"], columns=[]) == [{}, {}]


def test_a_request_gets_the_same_answer_alone_and_in_a_batch(engine: Engine) -> None:
    engine.classifier = DefaultClassifier()
    texts = [f"{verb} a {thing}" for verb in ("write", "fix", "sell") for thing in ("poem", "bug")]
    columns = ["request", "agent_name", "similarity", "score", "estimated_cost", "reasoning"]
    together = engine.ask("route_decisions", request=texts, columns=columns)
    alone = [engine.ask("route_decisions", request=text, columns=columns)[0] for text in texts]
    assert together == alone


def test_the_first_row_of_a_request_has_its_fallbacks_and_the_others_none(engine: Engine) -> None:
    first, second = engine.ask("route_decisions", request="x", optimize_for="cost", top_k="2")
    assert first["fallbacks"] == '{"code-specialist","gpt-4"}'
    assert second["fallbacks"] is None


def test_an_explanation_that_leaves_candidates_out_says_that_it_does(engine: Engine) -> None:
    (row,) = engine.ask("route_decisions", request="x", optimize_for="cost")
    assert json.loads(row["explanation"] or "")["truncated"] is False
    engine.agents = tuple(
        Agent(f"agent-{at:02}", "llm", (), Prices(per_call=at), Performance(1.0, 0.5))
        for at in range(MOST_LISTED + 1)
    )
    (row,) = engine.ask("route_decisions", request="x", optimize_for="cost")
    whole = json.loads(row["explanation"] or "")
    assert len(whole["candidates"]) == MOST_LISTED
    assert whole["truncated"] is True


def test_an_agent_that_lacks_two_capabilities_is_refused_once(engine: Engine) -> None:
    # gpt-4 has one of the two, code-specialist the other, and claude-3-haiku neither.
    (row,) = engine.ask(
        "route_decisions", request="x", required_capabilities=["reasoning", "debugging"]
    )
    whole = explain(row)
    assert whole["counts"]["by_constraint"] == {"required_capabilities": 3}
    assert {
        "agent": "code-specialist",
        "constraint": "required_capabilities",
        "limit": "reasoning",
        "actual": ["code-execution", "debugging", "testing"],
    } in whole["refusals"]


def test_the_best_is_said_to_be_so_and_the_next_to_be_next(engine: Engine) -> None:
    rows = engine.ask("route_decisions", request="x", optimize_for="cost", top_k="2")
    assert [(row["reasoning"] or "").split(":")[0] for row in rows] == [
        "claude-3-haiku is the cheapest of 3 agents that qualify",
        "code-specialist is number 2 by cost of 3 that qualify",
    ]
