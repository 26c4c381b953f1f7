"""A classifier from labelled texts to its answers, and through a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinydancer.errors import InvalidInput, NotFound, NumberOutOfRange
from tinydancer.neural import model_file, packing
from tinydancer.neural.calibration import area_under_roc
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.neural.dataset import LabelledText, prepare
from tinydancer.neural.fitting import FitOptions, Fitted, Rows, fit
from tinydancer.neural.model_file import Contents
from tinydancer.neural.training import TrainingOptions

OBJECTS = ["invoice", "parcel", "account", "refund", "order", "card", "contract", "ticket"]
ENDINGS = ["please", "today", "for me", "now", "again", "if you can", "at once", "this week"]
VERBS = {
    "code": (["debug", "compile", "refactor", "test"], ("coding", "reasoning")),
    "maths": (["integrate", "multiply", "sum", "solve"], ("reasoning",)),
    "chat": (["discuss", "enjoy", "greet", "praise"], ()),
}
WORDS = sorted({*OBJECTS, *" ".join(ENDINGS).split(), *(v for vs, _ in VERBS.values() for v in vs)})
OUTSIDE = tuple(f"{verb} {thing}" for verb in ("paint", "cook", "drive") for thing in OBJECTS)
OPTIONS = FitOptions(network=TrainingOptions(hidden=32, groups=2, epochs=40, batch=16, rate=5e-3))


def embed(texts: list[str] | tuple[str, ...]) -> np.ndarray:
    """Unit sums of a fixed random vector a word."""

    def vector(word: str) -> np.ndarray:
        seed = WORDS.index(word) if word in WORDS else 1000 + sum(map(ord, word))
        return np.random.default_rng(seed).normal(size=24)

    sums = np.array([sum(vector(word) for word in text.split()) for text in texts])
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)


def texts_of(part: int) -> list[LabelledText]:
    """Every third request of the little world, from `part` on."""
    rows = [
        LabelledText(f"{verb} the {thing} {ending}", label, capabilities)
        for label, (verbs, capabilities) in VERBS.items()
        for verb in verbs
        for thing in OBJECTS
        for ending in ENDINGS
    ]
    return rows[part::3]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    data = prepare(texts_of(0))
    return fit(data, embed(data.texts), "test-space", OPTIONS, outside=(OUTSIDE, embed(OUTSIDE)))


@pytest.fixture(scope="module")
def classifier(fitted: Fitted) -> RouteClassifier:
    return fitted.classifier


def test_unseen_requests_are_classified(classifier: RouteClassifier) -> None:
    rows = texts_of(1)
    texts = [row.text for row in rows]
    answers = classifier.classify(embed(texts), texts)
    assert np.mean([a.top_category == r.label for a, r in zip(answers, rows, strict=True)]) > 0.97
    needed = [{name for name, _ in answer.capabilities} for answer in answers]
    right = [found == set(row.capabilities) for found, row in zip(needed, rows, strict=True)]
    assert np.mean(right) > 0.9


def test_a_vector_alone_is_enough(classifier: RouteClassifier) -> None:
    rows = texts_of(1)
    answers = classifier.classify(embed([row.text for row in rows]))
    assert np.mean([a.top_category == r.label for a, r in zip(answers, rows, strict=True)]) > 0.95


def test_a_classification_lists_every_category_likeliest_first(
    classifier: RouteClassifier,
) -> None:
    answer = classifier.classify(embed(["debug the parcel now"]), ["debug the parcel now"])[0]
    names = [name for name, _ in answer.classifications]
    chances = [chance for _, chance in answer.classifications]
    assert sorted(names) == ["chat", "code", "maths"]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert (answer.top_category, answer.confidence) == answer.classifications[0]
    assert answer.plausible == tuple(names[: len(answer.plausible)])


def test_ties_go_by_name(classifier: RouteClassifier) -> None:
    heads = dict(classifier.network.heads)
    heads |= {"V": np.zeros_like(heads["V"]), "c": np.zeros_like(heads["c"])}
    level = replace(
        classifier,
        network=replace(classifier.network, heads=heads),
        lexical=None,
        with_words=None,
    )
    answer = level.classify(embed(["debug it"]))[0]
    assert [name for name, _ in answer.classifications] == ["chat", "code", "maths"]


def test_a_batch_gives_what_each_request_gives_alone(classifier: RouteClassifier) -> None:
    texts = [row.text for row in texts_of(2)[:20]] + ["???", ""]
    vectors = embed([text or "nothing" for text in texts])
    batch = classifier.score(vectors, texts).probabilities
    alone = [classifier.score(vectors[i], texts[i : i + 1]).probabilities[0] for i in range(22)]
    assert np.allclose(batch, alone, atol=1e-6)


def test_requests_from_outside_are_told_apart(classifier: RouteClassifier) -> None:
    known = [row.text for row in texts_of(1)]
    strange = [f"{verb} {thing}" for verb in ("water", "fly", "sing") for thing in OBJECTS]
    inside = classifier.score(embed(known), known).scope
    outside = classifier.score(embed(strange), strange).scope
    assert area_under_roc(inside, outside) > 0.95
    assert np.mean(inside <= 0) > 0.85
    assert np.mean(outside > 0) > 0.85


def test_conformal_sets_cover_what_they_state(classifier: RouteClassifier) -> None:
    rows = texts_of(1)
    texts = [row.text for row in rows]
    scores = classifier.score(embed(texts), texts)
    labels = [classifier.names.index(row.label) for row in rows]
    assert np.mean(scores.plausible[np.arange(len(rows)), labels]) > 0.9


def test_a_cascade_knows_which_share_it_hands_over(classifier: RouteClassifier) -> None:
    even = replace(classifier.vector_only, margins=tuple(np.linspace(0, 1, 21)))
    assert even.margin_below(0.3) == pytest.approx(0.3)
    assert (even.margin_below(0), even.margin_below(1)) == (0, 1)
    assert sorted(classifier.vector_only.margins) == list(classifier.vector_only.margins)
    with pytest.raises(NumberOutOfRange, match=r"the share is 1\.5"):
        even.margin_below(1.5)


def test_the_metrics_come_from_rows_held_out(fitted: Fitted) -> None:
    metrics = fitted.metrics
    assert metrics.held_out == metrics.rows == 256
    assert metrics.mixture > 0.95
    assert metrics.ece < 0.1
    assert metrics.scope_auroc is not None
    assert metrics.scope_auroc > 0.95


def test_fitting_again_gives_the_same_classifier(fitted: Fitted) -> None:
    data = prepare(texts_of(0))
    again = fit(data, embed(data.texts), "test-space", OPTIONS, outside=(OUTSIDE, embed(OUTSIDE)))
    assert packing.to_bytes(again.classifier) == packing.to_bytes(fitted.classifier)


def test_labels_that_say_nothing_are_given_no_confidence() -> None:
    rng = np.random.default_rng(0)
    rows = [
        LabelledText(f"w{rng.integers(400)} w{rng.integers(400)} {i}", "ab"[i % 2])
        for i in range(200)
    ]
    data = prepare(rows)
    noise = rng.normal(size=(len(data), 24)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    try:
        fitted = fit(data, noise, "test-space", OPTIONS)
    except InvalidInput as error:
        assert "no part of the classifier is better than chance" in error.message
    else:
        assert fitted.classifier.score(noise[:50]).probabilities.max() < 0.9


def test_label_names_help_where_rows_are_few() -> None:
    few = prepare([LabelledText(f"{label}{i}", label) for label in "xy" for i in range(5)])
    axes = np.eye(24, dtype=np.float32)
    vectors = np.repeat(axes[:2], 5, axis=0) + 0.3 * axes[2:12]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = (("the x", "the y"), axes[20:22])
    options = replace(OPTIONS, words=None)
    fitted = fit(few, vectors, "test-space", options, label_names=names)
    near = fitted.classifier.score(names[1])
    assert near.probabilities.argmax(axis=1).tolist() == [0, 1]


def test_taught_from_strings_of_no_category_it_is_less_sure_of_their_like() -> None:
    data = prepare(texts_of(0))
    alone = replace(OPTIONS, words=None)
    strange = OUTSIDE[::2], embed(OUTSIDE[::2])
    plain = fit(data, embed(data.texts), "s", alone)
    taught = fit(data, embed(data.texts), "s", alone, taught_outside=strange)
    plain_sure, taught_sure = (
        each.classifier.score(embed(OUTSIDE[1::2])).probabilities.max(axis=1).mean()
        for each in (plain, taught)
    )
    assert taught_sure < plain_sure - 0.1
    assert taught.metrics.mixture > 0.9


def test_rows_of_part_minus_one_are_never_held_out() -> None:
    data = prepare(texts_of(0))
    fold = np.where(np.arange(len(data)) % 2, -1, np.arange(len(data)) // 2 % 3)
    fitted = fit(data, embed(data.texts), "s", OPTIONS, fold=fold)
    assert fitted.metrics.held_out == np.sum(fold >= 0) == 128
    assert fitted.metrics.rows == 256


def test_progress_is_reported_stage_by_stage() -> None:
    data = prepare(texts_of(0)[:60] + texts_of(0)[-60:])
    seen: list[tuple[str, int, int]] = []
    fit(data, embed(data.texts), "s", OPTIONS, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("training", 40, 40)
    assert [stage for stage, done, _ in seen if done == 1] == [
        *(f"held-out part {n}" for n in range(1, 6)),
        "training",
    ]


def test_given_held_out_rows_it_stops_early_and_calibrates_on_them() -> None:
    data = prepare(texts_of(0))
    other = prepare(texts_of(1))
    held_out = Rows(other.texts, embed(other.texts), other.labels, other.capabilities)
    fitted = fit(data, embed(data.texts), "s", OPTIONS, held_out=held_out)
    assert fitted.metrics.held_out == len(other)
    assert fitted.metrics.mixture > 0.97


def test_rows_to_calibrate_on_change_the_calibration_and_not_the_network() -> None:
    data, other = prepare(texts_of(0)), prepare(texts_of(1))
    rows = Rows(other.texts, embed(other.texts), other.labels, other.capabilities)
    plain = fit(data, embed(data.texts), "s", OPTIONS).classifier
    fitted = fit(data, embed(data.texts), "s", OPTIONS, calibrate_on=rows)
    assert fitted.metrics.held_out == len(other)
    assert np.array_equal(fitted.classifier.network.heads["V"], plain.network.heads["V"])
    assert fitted.classifier.vector_only != plain.vector_only


# --- files -----------------------------------------------------------------------------------


def test_a_classifier_survives_its_file(classifier: RouteClassifier, tmp_path: Path) -> None:
    data = packing.to_bytes(classifier)
    assert packing.to_bytes(classifier) == data
    (tmp_path / "model.safetensors").write_bytes(data)
    again = packing.from_bytes((tmp_path / "model.safetensors").read_bytes())
    texts = [row.text for row in texts_of(1)]
    vectors = embed(texts)
    assert again.classify(vectors, texts) == classifier.classify(vectors, texts)


def test_a_compact_file_is_smaller_and_answers_the_same(classifier: RouteClassifier) -> None:
    data = packing.to_bytes(classifier, compact=True)
    assert len(data) < 0.6 * len(packing.to_bytes(classifier))
    again = packing.from_bytes(data)
    texts = [row.text for row in texts_of(1)]
    first = classifier.score(embed(texts), texts)
    second = again.score(embed(texts), texts)
    assert np.abs(first.probabilities - second.probabilities).max() < 0.1
    same = first.probabilities.argmax(axis=1) == second.probabilities.argmax(axis=1)
    assert same.mean() > 0.99


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(classifier: RouteClassifier, share: float) -> None:
    data = packing.to_bytes(classifier)
    with pytest.raises(InvalidInput, match="model seven is not a model: truncated"):
        packing.from_bytes(data[: int(len(data) * share)], "model seven")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are no weights " * 100)
    with pytest.raises(InvalidInput, match=r"notes\.txt is not a model"):
        model_file.read(path)
    with pytest.raises(NotFound, match="there is no model file"):
        model_file.read(tmp_path / "none")
    other = model_file.to_bytes(Contents({"a": np.zeros(1, np.float32)}, {"kind": "ranker"}))
    with pytest.raises(InvalidInput, match="is a 'ranker', not a 'classifier'"):
        packing.from_bytes(other)


def reopened(classifier: RouteClassifier) -> tuple[dict, dict]:
    contents = model_file.from_bytes(packing.to_bytes(classifier))
    return dict(contents.arrays), dict(json.loads(json.dumps(contents.about)))


def test_nan_weights_are_refused(classifier: RouteClassifier) -> None:
    arrays, about = reopened(classifier)
    arrays["cell.W"] = np.full_like(arrays["cell.W"], np.nan)
    with pytest.raises(NumberOutOfRange, match=r"array 'cell\.W' has NaN"):
        packing.from_bytes(model_file.to_bytes(Contents(arrays, about)))


def test_parts_that_do_not_fit_each_other_are_refused(classifier: RouteClassifier) -> None:
    arrays, about = reopened(classifier)
    wrong = {**about, "names": [*about["names"], "one more"]}
    with pytest.raises(InvalidInput, match="parameter V of the head is float32"):
        packing.from_bytes(model_file.to_bytes(Contents(arrays, wrong)))
    wrong = {**about, "cell": {**about["cell"], "inputs": 25}}
    with pytest.raises(InvalidInput, match="parameter W of the cell is float32"):
        packing.from_bytes(model_file.to_bytes(Contents(arrays, wrong)))
    del arrays["prototypes"]
    with pytest.raises(InvalidInput, match="lacks a part of a classifier"):
        packing.from_bytes(model_file.to_bytes(Contents(arrays, about)))
    with pytest.raises(InvalidInput, match="has format 2"):
        packing.from_bytes(model_file.to_bytes(Contents(arrays, {**about, "format": 2})))


def test_vectors_of_another_dimension_are_refused(classifier: RouteClassifier) -> None:
    with pytest.raises(
        InvalidInput, match="the vectors have 25 dimensions, the classifier takes 24"
    ):
        classifier.score(np.zeros((1, 25), np.float32))
    with pytest.raises(InvalidInput, match="2 texts were given for 1 vectors"):
        classifier.score(np.zeros((1, 24), np.float32), ["a", "b"])
    with pytest.raises(NumberOutOfRange, match="vector 1 has a value that is not finite"):
        classifier.score(np.array([[0.0] * 24, [np.nan] * 24], np.float32))
