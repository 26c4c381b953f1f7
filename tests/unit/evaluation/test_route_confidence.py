import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.evaluation.departments import DEPARTMENTS
from tinydancer.evaluation.route_confidence import (
    Intents,
    Matches,
    best_threshold,
    calibration_error,
    departments,
    fit_logistic,
    play,
    read_intents,
)
from tinydancer.semantic_routes.confidence import CALIBRATIONS, MODEL_FITTED, calibration

ODDS = np.array([-4.0, 5.0, 3.0, -1.0, 2.0])


def matches(count: int, weights: np.ndarray) -> Matches:
    """Matches whose odds are known."""
    rng = np.random.default_rng(0)
    similarity, margin = rng.random(count), rng.random(count) / 2
    closeness = rng.random(count)
    inputs = [np.ones(count), similarity, margin, closeness, margin * closeness]
    p = 1 / (1 + np.exp(-(weights @ np.array(inputs))))
    return Matches(similarity, margin, closeness, rng.random(count) < p, np.ones(count, bool))


def test_the_logistic_that_made_the_matches_is_found_again() -> None:
    fitted = fit_logistic(matches(200_000, ODDS))
    assert fitted.tolist() == pytest.approx(ODDS.tolist(), abs=0.3)


def test_true_odds_have_hardly_a_calibration_error_and_wrong_ones_do() -> None:
    found = matches(50_000, ODDS)
    assert calibration_error(ODDS, found) < 0.01
    assert calibration_error(ODDS + np.array([3.0, 0.0, 0.0, 0.0, 0.0]), found) > 0.1


def test_the_threshold_of_the_greatest_f1_parts_right_from_wrong() -> None:
    similarity = np.array([0.9, 0.8, 0.7, 0.4, 0.3])
    right = np.array([True, True, True, False, False])
    threshold, f1 = best_threshold(Matches(similarity, similarity, similarity, right, right))
    assert 0.4 < threshold <= 0.7
    assert f1 == 1.0


def test_installations_are_played_from_files_the_same_way_each_time(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            for label in range(80):
                for at in range(3):
                    text = f"{name} {at} about subject {label}"
                    file.write(json.dumps({"text": text, "label": f"subject_{label}"}) + "\n")
    intents = read_intents(tmp_path, StaticEmbedder.builtin())
    assert len(intents.utterances) == len(intents.queries) == 80
    found = play(intents, 3)
    assert found.in_scope.mean() == 0.5
    assert not found.right[~found.in_scope].any()
    assert found.right.any()
    assert (found.margin >= 0).all()
    assert found.similarity.tolist() == play(intents, 3).similarity.tolist()


def test_a_department_knows_what_is_known_of_its_intents() -> None:
    # given vectors of two utterances and a query for each intent of CLINC150
    labels = [label for department in DEPARTMENTS for label in department.intents]
    assert len(set(labels)) == 150
    vectors = {label: np.full((2, 3), at) for at, label in enumerate(labels)}
    queries = {label: np.full((1, 3), at) for at, label in enumerate(labels)}
    clinc = Intents("clinc150", {}, vectors, queries, np.zeros((1, 3)))
    # then each department has those of its fifteen, and two descriptions of its own
    found = departments(clinc, StaticEmbedder.builtin())
    assert list(found.utterances) == [department.name for department in DEPARTMENTS]
    assert found.utterances["Credit cards"][:, 0].tolist() == sorted([*range(15, 30)] * 2)
    assert found.queries["Banking"][:, 0].tolist() == list(range(15))
    assert found.descriptions["Travel"].shape == (2, 384)


def test_the_built_in_embedder_has_a_calibration_of_its_own() -> None:
    fit = "python -m tinydancer.evaluation.route_confidence --data DIR --write"
    assert StaticEmbedder.builtin().model in json.loads(CALIBRATIONS.read_text()), fit
    assert calibration("a model that nobody has fitted") == calibration(MODEL_FITTED)
    for model in json.loads(CALIBRATIONS.read_text()):
        assert 0 < calibration(model).confidence(0.6, 0.1, None) < 1
