import json
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.tables import text


def test_money_has_neither_exponent_nor_idle_zeros() -> None:
    assert [text.money(value) for value in (0.0, 0.00006675, 1.0, 12.5, 1e-9, 100.0)] == [
        "0", "0.00006675", "1", "12.5", "0.000000001", "100",
    ]  # fmt: skip


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_precision_comes_back_as_it_was(value: float) -> None:
    assert float(text.double(value)) == value


def test_a_numpy_float_is_written_as_a_number() -> None:
    assert text.double(np.float64(0.5)) == "0.5"


def test_elements_of_an_array_are_quoted_and_escaped() -> None:
    assert text.array(["a", 'b"c', "d\\e", "NULL", None, ""]) == (
        r'{"a","b\"c","d\\e","NULL",NULL,""}'
    )
    assert text.array([["a"], ["b"]]) == '{{"a"},{"b"}}'
    assert text.array([]) == "{}"


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float32_of_a_vector_comes_back(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    assert np.array(json.loads(text.vector(vector)), np.float32).tolist() == vector.tolist()


def test_jsonb_has_no_place_for_what_is_no_number() -> None:
    assert text.jsonb({"ä": [1, None]}) == '{"ä":[1,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        text.jsonb(float("nan"))


def test_times_and_truth() -> None:
    assert text.interval(timedelta(minutes=2, microseconds=5)) == "120.000005 seconds"
    assert text.timestamptz(datetime(2026, 1, 2, 3, tzinfo=timezone.utc)) == (
        "2026-01-02T03:00:00+00:00"
    )
    assert (text.boolean(True), text.boolean(False)) == ("t", "f")
