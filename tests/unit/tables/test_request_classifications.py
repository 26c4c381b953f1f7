from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from tinydancer.errors import NotReady
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.neural.dataset import LabelledText, prepare
from tinydancer.neural.fitting import FitOptions, fit
from tinydancer.neural.training import TrainingOptions

if TYPE_CHECKING:
    from .conftest import Engine, Watched


@dataclass(frozen=True)
class ActiveClassifier:
    name: str
    classifier: RouteClassifier


THINGS = ("a parser", "my script", "the login page", "this function", "an old module")
MEALS = ("a soup", "my dinner", "the noodles", "this cake", "an old recipe")
OPTIONS = FitOptions(network=TrainingOptions(hidden=16, groups=2, epochs=30, batch=8, rate=5e-3))


@pytest.fixture(scope="module")
def active(watched: Watched) -> ActiveClassifier:
    code = [f"{verb} {thing}" for verb in ("debug", "refactor", "compile") for thing in THINGS]
    food = [f"{verb} {meal}" for verb in ("cook", "bake", "taste") for meal in MEALS]
    data = prepare(
        [
            *(LabelledText(text, "code", ("coding",)) for text in code),
            *(LabelledText(text, "food", ()) for text in food),
        ]
    )
    fitted = fit(data, watched.embed(data.texts), watched.space, OPTIONS)
    return ActiveClassifier("kitchen-1", fitted.classifier)


@pytest.fixture
def classifying(engine: Engine, active: ActiveClassifier) -> Engine:
    context = replace(engine.context(), classifier=active)
    engine.context = lambda: context  # type: ignore[method-assign]
    return engine


def test_each_text_has_its_category_and_the_model_that_said_so(classifying: Engine) -> None:
    rows = classifying.ask(
        "request_classifications", content=["refactor a parser", "cook the noodles"]
    )
    assert [row["content"] for row in rows] == ["refactor a parser", "cook the noodles"]
    assert [json.loads(row["classification"] or "")["top_category"] for row in rows] == [
        "code",
        "food",
    ]
    assert {row["model"] for row in rows} == {"kitchen-1"}
    for row in rows:
        assert row["out_of_scope"] in ("t", "f")
        assert row["category"] in (("code", "food") if row["out_of_scope"] == "f" else (None,))


def test_the_classification_has_what_the_columns_have(classifying: Engine) -> None:
    (row,) = classifying.ask("request_classifications", content="debug my script")
    whole = json.loads(row["classification"] or "")
    probabilities = [probability for _, probability in whole["classifications"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert float(row["confidence"] or "") == whole["confidence"] == probabilities[0]
    assert whole["top_category"] == whole["classifications"][0][0]
    assert whole["out_of_scope"] == (row["out_of_scope"] == "t")
    listed = ",".join(f'"{name}"' for name, _ in whole["capabilities"])
    assert row["capabilities"] == "{" + listed + "}"


def test_without_an_active_classifier_the_error_says_how_to_get_one(engine: Engine) -> None:
    with pytest.raises(NotReady, match="no classifier is active") as error:
        engine.ask("request_classifications", content="x")
    assert "ruvector_train_classifier" in error.value.hint


def test_a_classifier_of_another_space_is_refused(
    classifying: Engine, active: ActiveClassifier
) -> None:
    foreign = replace(active.classifier, space="another")
    context = replace(classifying.context(), classifier=ActiveClassifier("old", foreign))
    classifying.context = lambda: context  # type: ignore[method-assign]
    with pytest.raises(NotReady, match="'old' reads vectors of 'another'"):
        classifying.ask("request_classifications", content="x")
