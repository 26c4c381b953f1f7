"""What the surface of a text says."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.learning.surface import SURFACE_FEATURES, surface_features
from tinydancer.learning.terms import fit_term_weights, hash_terms


def feature(text: str, name: str) -> float:
    return float(surface_features([text])[0, SURFACE_FEATURES.index(name)])


def test_numbers_are_counted_with_their_separators() -> None:
    text = "He pays $1,250.50 for 3 of 3 tickets, or 3/4 of them at 15%."
    assert np.isclose(feature(text, "numbers"), np.log1p(6))
    assert np.isclose(feature(text, "repeated_numbers"), np.log1p(2))
    assert np.isclose(feature(text, "largest_number"), np.log1p(1250.5), rtol=1e-5)
    assert np.isclose(feature(text, "fractions"), np.log1p(1))
    assert np.isclose(feature(text, "percentages"), np.log1p(1))
    assert np.isclose(feature(text, "money"), np.log1p(1))


def test_options_of_a_multiple_choice_are_found() -> None:
    text = "Which is prime?\nA. 4\nB. 7\nC. 9\nD. 21"
    assert feature(text, "options") == 4
    assert feature(text, "numeric_options") == 1
    assert feature(text, "ends_in_question") == 1
    assert feature(text, "asks_which") == 1


def test_an_empty_text_has_finite_features() -> None:
    assert np.isfinite(surface_features(["", " \n"])).all()


def test_no_text_is_no_row() -> None:
    assert surface_features([]).shape == (0, len(SURFACE_FEATURES))


@given(st.lists(st.text(max_size=300), max_size=5))
def test_any_text_gives_finite_features_of_its_own(texts: list[str]) -> None:
    rows = surface_features(texts)
    assert rows.shape == (len(texts), len(SURFACE_FEATURES))
    assert np.isfinite(rows).all()
    alone = [surface_features([text])[0] for text in texts]
    assert all(np.array_equal(row, own) for row, own in zip(rows, alone, strict=True))


def test_a_number_of_a_thousand_digits_is_finite() -> None:
    assert np.isfinite(surface_features(["9" * 1000 + " and " + "1" * 5000])).all()


def test_terms_are_words_and_pairs_whatever_their_case() -> None:
    terms = hash_terms(["Sort the list", "sort THE list", "the list sort"])
    first, second, third = (set(terms.take(np.array([i])).buckets.tolist()) for i in range(3))
    assert first == second
    assert len(first) == 5
    assert first & third != first


def test_term_columns_have_unit_length_and_unknown_texts_none() -> None:
    terms = hash_terms(["red blue", "red green", "red blue green", "zebra"])
    weights = fit_term_weights(terms, most=10, least_documents=2)
    columns = weights.columns(terms)
    assert np.allclose(np.linalg.norm(columns[:3], axis=1), 1, atol=1e-6)
    assert not columns[3].any()


def test_the_rarer_of_two_terms_weighs_more() -> None:
    terms = hash_terms(["red blue", "red green", "red blue", "red pink"])
    weights = fit_term_weights(terms, most=100, least_documents=1)
    red, blue = (hash_terms([word]).buckets[0] for word in ("red", "blue"))
    found = dict(zip(weights.buckets.tolist(), weights.inverse_frequency.tolist(), strict=True))
    assert found[int(blue)] > found[int(red)]
