"""Quals become typed questions, or an error that names argument and value."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tinydancer.errors import (
    InvalidInput,
    InvalidText,
    MissingInput,
    NumberOutOfRange,
    TinyDancerError,
    TooLarge,
)
from tinydancer.tables.inputs import Question, chunks, questions
from tinydancer_fdw.contract import ENGINE_STATUS, ROUTE_DECISIONS, SEMANTIC_MATCHES, Table
from tinydancer_fdw.frames import ANY, EQUALS, Input, Value


def equals(column: str, value: Value) -> Input:
    return Input(column, EQUALS, value)


def any_of(column: str, *values: Value) -> Input:
    return Input(column, ANY, list(values))


def ask(*inputs: Input, table: Table = ROUTE_DECISIONS, most: int = 100) -> list[Question]:
    limits = SimpleNamespace(max_text_bytes=50, max_batch=most)
    return list(questions(table, inputs, limits))


REQUEST = equals("request", "hello")


def test_values_are_typed_and_their_text_kept_for_the_echo() -> None:
    (question,) = ask(
        REQUEST,
        equals("max_cost", "1e-2"),
        equals("top_k", "3"),
        equals("required_capabilities", ["code", 'say "hi"']),
        equals("optimize_for", "cost"),
    )
    assert question.texts == ("hello",)
    assert question.number("max_cost") == 0.01
    assert question.integer("top_k") == 3
    assert question.names("required_capabilities") == ("code", 'say "hi"')
    assert question.text("optimize_for") == "cost"
    assert question.arguments["max_cost"].echo == "1e-2"
    assert question.arguments["required_capabilities"].echo == r'{"code","say \"hi\""}'


def test_what_was_not_given_is_none() -> None:
    (question,) = ask(REQUEST)
    assert question.number("max_cost") is None
    assert question.text("user_tier") is None
    assert question.names("excluded_agents") == ()
    assert question.arguments == {}


def test_every_text_is_asked_once_in_its_order_and_nulls_ask_nothing() -> None:
    (question,) = ask(any_of("request", "b", None, "a", "b"))
    assert question.texts == ("b", "a")


def test_lists_multiply_the_last_column_fastest_and_all_texts_of_one_combination_first() -> None:
    found = ask(
        any_of("top_k", "1", "2"),
        any_of("request", "x", "y"),
        any_of("optimize_for", "quality", "cost"),
    )
    assert [(q.text("optimize_for"), q.integer("top_k")) for q in found] == [
        ("quality", 1),
        ("quality", 2),
        ("cost", 1),
        ("cost", 2),
    ]
    assert {question.texts for question in found} == {("x", "y")}


def test_an_input_that_equals_null_asks_nothing() -> None:
    assert ask(equals("request", None)) == []
    assert ask(any_of("request")) == []
    assert ask(REQUEST, equals("max_cost", None)) == []


def test_an_input_given_twice_must_satisfy_both() -> None:
    (question,) = ask(any_of("request", "a", "b", "c"), any_of("request", "c", "b"))
    assert question.texts == ("b", "c")
    assert ask(equals("request", "a"), equals("request", "b")) == []


def test_a_table_without_a_required_input_is_asked_once() -> None:
    (question,) = ask(table=ENGINE_STATUS)
    assert question.texts == ("",)


def test_a_missing_required_input_is_an_error_with_a_hint() -> None:
    with pytest.raises(MissingInput, match="route_decisions needs a value for request") as error:
        ask(equals("optimize_for", "cost"))
    assert "WHERE request = '...'" in error.value.hint


def test_an_output_or_unknown_column_is_no_input() -> None:
    with pytest.raises(InvalidInput, match="semantic_matches has no input 'rank'") as error:
        ask(equals("query", "x"), equals("rank", "1"), table=SEMANTIC_MATCHES)
    assert error.value.hint == "Its inputs: query, top_k, user_tier."


def test_an_unknown_objective_is_refused_with_what_is_meant_and_allowed() -> None:
    with pytest.raises(InvalidInput, match="optimize_for = 'Qualtiy' is not an objective") as error:
        ask(REQUEST, equals("optimize_for", "Qualtiy"))
    assert "Did you mean 'quality'?" in error.value.hint
    assert "'quality_per_dollar'" in error.value.hint


@pytest.mark.parametrize(
    ("column", "value", "error"),
    [
        ("max_cost", "NaN", NumberOutOfRange),
        ("max_cost", "-0.01", NumberOutOfRange),
        ("max_cost", "Infinity", NumberOutOfRange),
        ("budget_remaining", "-1", NumberOutOfRange),
        ("max_latency_ms", "-Infinity", NumberOutOfRange),
        ("min_quality", "1.01", NumberOutOfRange),
        ("min_quality", "NaN", NumberOutOfRange),
        ("expected_output_tokens", "-1", NumberOutOfRange),
        ("expected_output_tokens", "2000000000", NumberOutOfRange),
        ("top_k", "0", NumberOutOfRange),
        ("top_k", "1000000", NumberOutOfRange),
        ("top_k", "1.5", InvalidInput),
        ("max_cost", "cheap", InvalidInput),
        ("user_tier", " ", InvalidInput),
        ("user_tier", "a\0b", InvalidText),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_argument(
    column: str, value: str, error: type[TinyDancerError]
) -> None:
    with pytest.raises(error) as found:
        ask(REQUEST, equals(column, value))
    assert found.value.message.startswith(column)
    assert "\0" in value or value in found.value.message


@pytest.mark.parametrize("column", ["tenant", "user_tier", "session_key"])
def test_what_sums_and_sessions_are_kept_by_has_256_bytes_at_most(column: str) -> None:
    (question,) = ask(REQUEST, equals(column, "é" * 128))
    assert question.text(column) == "é" * 128
    with pytest.raises(TooLarge) as found:
        ask(REQUEST, equals(column, "é" * 128 + "x"))
    assert found.value.message == f"{column} has 257 bytes, over the limit of 256"
    assert found.value.hint


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (["code", None], InvalidInput, "required_capabilities has a NULL in it"),
        (["code", " "], InvalidInput, "required_capabilities = ' ' is empty"),
        ([["code"], ["math"]], InvalidInput, "required_capabilities has more than one dimension"),
        ("code", InvalidInput, "required_capabilities = 'code' is not an array"),
        (["x"] * 10_001, TooLarge, "required_capabilities has 10001 elements, over"),
        (["x" * 1001], TooLarge, "required_capabilities has 1001 characters, over the limit"),
    ],
)
def test_a_list_that_is_not_allowed_is_named(
    value: Value, error: type[TinyDancerError], message: str
) -> None:
    with pytest.raises(error, match=message) as found:
        ask(REQUEST, equals("required_capabilities", value))
    assert found.value.hint


def test_an_empty_list_of_capabilities_asks_for_none() -> None:
    (question,) = ask(REQUEST, equals("required_capabilities", []))
    assert question.names("required_capabilities") == ()
    assert question.arguments["required_capabilities"].echo == "{}"


@pytest.mark.parametrize("blank", ["", " \n\t", "\u3000"])
def test_an_empty_request_is_refused(blank: str) -> None:
    with pytest.raises(InvalidInput, match="request is empty"):
        ask(any_of("request", "fine", blank))


def test_a_nul_in_a_request_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidText, match="request has a NUL character at position 3"):
        ask(equals("request", "ab\0c"))


def test_a_request_over_the_limit_is_refused_by_its_bytes() -> None:
    assert ask(equals("request", "x" * 50))
    with pytest.raises(TooLarge, match="request has 51 bytes, over the limit of 50"):
        ask(equals("request", "é" * 25 + "x"))


def test_more_requests_than_a_scan_may_have_are_refused() -> None:
    with pytest.raises(TooLarge, match="6 requests in one scan of route_decisions are over"):
        ask(any_of("request", "a", "b", "c"), any_of("top_k", "1", "2"), most=5)


def test_one_bad_value_among_many_refuses_all() -> None:
    with pytest.raises(NumberOutOfRange, match="max_cost = -1"):
        ask(REQUEST, any_of("max_cost", "1", "-1"))


def test_texts_come_in_pieces_that_begin_with_the_rows_wanted_and_double() -> None:
    texts = [str(at) for at in range(20)]
    assert [len(piece) for piece in chunks(texts, 2, 8)] == [2, 4, 8, 6]
    assert [len(piece) for piece in chunks(texts, -1, 8)] == [8, 8, 4]
    assert [text for piece in chunks(texts, 1, 8) for text in piece] == texts
