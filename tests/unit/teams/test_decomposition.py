"""A request taken apart, and why each piece is one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.teams.decomposition import (
    MOST_PARTS,
    Part,
    assign_capabilities,
    exactly,
    independent,
    split_request,
)

CAPABILITIES = ("translation", "summarising", "code", "testing", "data analysis")


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.builtin()


def texts(request: str) -> list[str]:
    return [part.text for part in split_request(request)]


def test_two_verbs_with_one_object_are_two_stages_of_it() -> None:
    build, deploy = split_request("Build and deploy a web application")
    assert build.text == "Build a web application"
    assert deploy.text == "deploy a web application"
    assert "shared with 'deploy'" in build.reason
    assert deploy.depends


def test_words_of_order_part_the_steps() -> None:
    request = "Summarise the report, then translate it into French. Finally, post it online."
    assert texts(request) == ["Summarise the report", "translate it into French", "post it online"]


def test_items_of_a_list_are_pieces() -> None:
    parts = split_request("1. Extract the tables\n2. Compute the totals\n- Draft a report")
    assert [part.text for part in parts] == [
        "Extract the tables",
        "Compute the totals",
        "Draft a report",
    ]
    assert {part.reason for part in parts} == {"item of a list"}


def test_nouns_joined_by_and_are_not_torn_apart() -> None:
    assert texts("Compare sales and marketing in Paris and London") == [
        "Compare sales and marketing in Paris and London"
    ]


@pytest.mark.parametrize(
    "request_text", ["What is the capital of France?", "hello", "  ", "3.14 + 2.71"]
)
def test_what_does_not_come_apart_is_whole(request_text: str) -> None:
    (part,) = split_request(request_text)
    assert part.reason == "the whole request"


def test_only_what_does_not_build_on_another_runs_side_by_side() -> None:
    apart = split_request("Find a hotel in Rome and compare train prices to Milan")
    assert len(independent(apart)) == 2
    chained = split_request("Write a parser and test it")
    assert [part.text for part in independent(chained)] == ["Write a parser; test it"]


def test_a_capability_that_the_text_names_goes_before_one_like_it(
    embedder: StaticEmbedder,
) -> None:
    (part,) = assign_capabilities(
        split_request("Run data analysis over the numbers"), CAPABILITIES, embedder
    )
    assert (part.capability, part.similarity) == ("data analysis", 1.0)


def test_stages_find_the_capability_by_meaning(embedder: StaticEmbedder) -> None:
    parts = assign_capabilities(
        split_request("Translate the letter into German, then write a Python program"),
        CAPABILITIES,
        embedder,
    )
    assert [part.capability for part in parts] == ["translation", "code"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_there_are_as_many_parts_as_agents(embedder: StaticEmbedder, count: int) -> None:
    request = "Build and test a parser, then summarise how it works"
    parts = assign_capabilities(split_request(request), CAPABILITIES, embedder)
    fitted = exactly(parts, count, request, CAPABILITIES, embedder)
    assert len(fitted) == count
    added = [part.capability for part in fitted if part.reason.startswith("the whole request")]
    assert len(set(added)) == len(added)


def test_with_fewer_agents_the_neighbours_that_are_most_alike_are_joined(
    embedder: StaticEmbedder,
) -> None:
    texts = ("bake a cake", "cook dinner", "repair the car engine")
    parts = [Part(text, "given", False) for text in texts]
    fitted = exactly(parts, 2, "; ".join(texts), (), embedder)
    assert [part.text for part in fitted] == ["bake a cake; cook dinner", "repair the car engine"]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("abz ,.;\n-1and then build test it&()"), max_size=200))
def test_any_text_comes_apart_in_the_same_way_twice(request: str) -> None:
    parts = split_request(request)
    assert 1 <= len(parts) <= MOST_PARTS
    assert not parts[0].depends
    assert parts == split_request(request)
