from hypothesis import given
from hypothesis import strategies as st

from tinydancer.semantic_routes.words import WordIndex, Words


def words(text: str) -> Words:
    return frozenset(text.split())


def test_a_text_is_found_in_a_request_that_has_all_its_words() -> None:
    index = WordIndex.build([("lamps", words("red lamp")), ("codes", words("e7"))])
    assert index.shared(words("my lamp turned red")) == {"lamps": 2}
    assert index.shared(words("my red lamp says e7")) == {"lamps": 2, "codes": 1}
    assert index.shared(words("my lamp")) == {}


def test_a_request_is_found_in_a_text_that_has_all_its_words() -> None:
    index = WordIndex.build([("faults", words("faults such as e7 and e8"))])
    assert index.shared(words("e7")) == {"faults": 1}
    assert index.shared(words("e7 e9")) == {}


def test_of_several_texts_the_one_with_the_most_words_counts() -> None:
    index = WordIndex.build([("r", words("e7")), ("r", words("red e7")), ("r", words("blue"))])
    assert index.shared(words("red e7 again")) == {"r": 2}


def test_texts_and_requests_without_words_share_nothing() -> None:
    assert WordIndex.build([("empty", words(""))]).shared(words("e7")) == {}
    assert WordIndex.build([("r", words("e7"))]).shared(words("")) == {}


some_words = st.frozensets(st.sampled_from("abcdef"), max_size=5)


@given(st.lists(st.tuples(st.sampled_from(["r1", "r2", "r3"]), some_words)), some_words)
def test_the_index_finds_what_comparing_every_text_finds(
    texts: list[tuple[str, Words]], request: Words
) -> None:
    expected: dict[str, int] = {}
    for route, text in texts:
        if text and request and (text <= request or request <= text):
            expected[route] = max(expected.get(route, 0), min(len(text), len(request)))
    assert WordIndex.build(texts).shared(request) == expected
