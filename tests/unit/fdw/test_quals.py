"""Multicorn's quals as inputs of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tinydancer_fdw import quals
from tinydancer_fdw.contract import ENGINE_STATUS, ROUTE_DECISIONS
from tinydancer_fdw.frames import ANY, EQUALS, Input


@dataclass(frozen=True)
class Qual:
    """As Multicorn makes it."""

    field_name: str
    operator: str | tuple[str, bool]
    value: Any


REQUEST = Qual("request", "=", "x")


def inputs(*given: Qual) -> list[Input]:
    return quals.inputs(ROUTE_DECISIONS, given)


def test_an_equality_is_an_input() -> None:
    assert inputs(Qual("request", "=", "x")) == [Input("request", EQUALS, "x")]


def test_equals_any_is_a_list_with_its_nulls() -> None:
    found = inputs(Qual("request", ("=", True), ["a", None, "b"]))
    assert found == [Input("request", ANY, ["a", None, "b"])]


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), (0.1, "0.1"), (1e300, "1e+300"), (True, "t"), ("0.5", "0.5"), (["a"], ["a"])],
)
def test_a_value_travels_as_its_text_form(value: object, text: object) -> None:
    assert quals.wire(value) == text


def test_of_several_quals_on_one_column_an_equality_is_asked() -> None:
    both = [Qual("request", ("=", True), ["a", "b"]), Qual("request", "=", "b")]
    assert inputs(*both) == inputs(*reversed(both)) == [Input("request", EQUALS, "b")]


def test_a_qual_on_an_output_is_postgresqls_own() -> None:
    assert inputs(Qual("rank", ">", 1), Qual("agent_name", "=", "x")) == []


def test_is_null_gives_an_optional_input_no_value() -> None:
    assert inputs(Qual("max_cost", "=", None)) == []


def test_a_required_input_that_equals_null_says_so_and_so_yields_nothing() -> None:
    assert inputs(Qual("request", "=", None)) == [Input("request", EQUALS, None)]
    assert inputs(Qual("request", ("=", True), None)) == [Input("request", EQUALS, None)]


def test_a_comparison_beside_a_value_is_postgresqls_own() -> None:
    both = [Qual("top_k", ">", 1), Qual("top_k", "=", 3)]
    found = inputs(REQUEST, *both, Qual("request", "<>", None))
    assert found == [Input("request", EQUALS, "x"), Input("top_k", EQUALS, "3")]


@pytest.mark.parametrize("operator", ["<", "~~", ("=", False), ("<", True)])
def test_a_comparison_with_an_input_that_has_no_value_is_refused(operator: Any) -> None:
    with pytest.raises(quals.UnusableQual, match="max_cost is an input") as caught:
        inputs(REQUEST, Qual("max_cost", operator, 0.5))
    assert "max_cost = " in caught.value.hint
    assert caught.value.sqlstate == "22023"


@pytest.mark.parametrize("operator", ["<", "<>", ("=", False)])
def test_a_comparison_with_a_required_input_is_no_value(operator: Any) -> None:
    with pytest.raises(quals.UnusableQual, match="needs a value for request") as caught:
        inputs(Qual("max_cost", "<", 0.5), Qual("request", operator, "x"))
    assert "request = " in caught.value.hint
    assert caught.value.sqlstate == "22004"


def test_of_a_missing_required_input_the_engine_speaks_first() -> None:
    assert inputs(Qual("max_cost", "<", 0.5)) == []


def test_a_comparison_beside_is_null_holds_for_no_row() -> None:
    assert inputs(REQUEST, Qual("max_cost", "=", None), Qual("max_cost", "<", 0.5)) == [
        Input("request", EQUALS, "x")
    ]


@pytest.mark.parametrize(
    "given",
    [
        [Qual("request", ("=", True), "\x01garbage")],
        [REQUEST, Qual("required_capabilities", "=", "\x01garbage")],
    ],
)
def test_an_array_that_multicorn_garbles_is_refused(given: list[Qual]) -> None:
    with pytest.raises(quals.UnusableQual, match=f"on to {given[-1].field_name}"):
        inputs(*given)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ([Qual("request", "=", "x")], 1),
        ([Qual("request", ("=", True), ["a", "b"])], 2),
        ([Qual("request", ("=", True), ["a", "b"]), Qual("request", "=", "a")], 1),
        ([Qual("top_k", "=", 1)], None),
    ],
)
def test_the_number_of_requests_is_known_from_the_key(given: list[Qual], count: int | None) -> None:
    assert quals.requests(ROUTE_DECISIONS, given) == count


def test_explain_shows_the_table_its_inputs_and_how_many_requests() -> None:
    given = [Qual("request", ("=", True), ["a", "b"]), Qual("optimize_for", "=", "it's")]
    assert quals.explain(ROUTE_DECISIONS, given, {"rank", "request", "optimize_for"}) == [
        "Engine Table: route_decisions",
        "Inputs: request = ANY of 2, optimize_for = 'it''s'",
        "Columns: request, optimize_for, rank",
        "Requests: 2",
    ]


def test_explain_shows_no_more_than_the_beginning_of_a_long_text() -> None:
    line = quals.explain(ROUTE_DECISIONS, [Qual("request", "=", "x" * 10_000)], ())[1]
    assert len(line) < 100


def test_explain_of_a_table_without_inputs_says_none() -> None:
    assert quals.explain(ENGINE_STATUS, [], ["pid"])[1] == "Inputs: none"
