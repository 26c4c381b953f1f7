"""The benchmark of the static table measures on texts that were held out."""

from __future__ import annotations

from tests.benchmarks import static_table

from tinydancer.embeddings.static import StaticEmbedder


def test_it_is_measured_on_texts_that_it_was_not_taught() -> None:
    # given five rows a label
    rows = [(f"{word} {number}", word) for word in ("refund", "weather") for number in range(5)]
    # when they are split, then no text is on both sides
    known, asked = static_table.split(rows)
    assert sorted(known + asked) == sorted(rows)
    assert len(asked) == 2
    # and what is asked is measured against the labels of the others
    full, _ = static_table.slices_of("made up", known, asked)
    embedder = StaticEmbedder.builtin()
    assert static_table.right(full, embedder) == [100.0, 100.0, 100.0]
    shares, _ = static_table.cascade(full, embedder, embedder)
    assert shares == [100.0] * len(static_table.ESCALATED)
