"""Classifying requests, training classifiers in the background, fitting routes' thresholds."""

from __future__ import annotations

import time

import psycopg
import pytest

from tinydancer.embeddings.wrapper import EmbedderWrapper
from tinydancer.trainings import classifier, heartbeat
from tinydancer.trainings.run import train_next

TAUGHT = {
    "refund": [
        "please refund my payment",
        "I want my money back",
        "how do I get a refund for this order",
        "you charged me twice, return the money",
        "refund the last invoice",
    ],
    "weather": [
        "will it rain tomorrow",
        "what is the weather in Paris",
        "how cold will it be tonight",
        "is it sunny outside",
        "weather forecast for the weekend",
    ],
}


def teach(db: psycopg.Connection) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO labelled_requests (request, category) VALUES (%s, %s)",
            [(text, category) for category, texts in TAUGHT.items() for text in texts],
        )


def train(db: psycopg.Connection, name: str, seed: int = 0) -> int:
    """The id of a model whose training was asked for and waited for, well or badly."""
    (model,) = db.execute("SELECT ruvector_train_classifier(%s, %s)", (name, seed)).fetchone()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        row = db.execute(
            "SELECT state, progress, message FROM models WHERE id = %s", (model,)
        ).fetchone()
        if row[0] != "training":
            return model
        time.sleep(0.05)
    raise AssertionError(f"the training of model {model} does not end: {row}")


def finished(db: psycopg.Connection, model: int) -> str:
    """The state in which a training has ended."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        (state,) = db.execute("SELECT state FROM models WHERE id = %s", (model,)).fetchone()
        if state != "training":
            return str(state)
        time.sleep(0.05)
    raise AssertionError(f"the training of model {model} does not end")


def use(db: psycopg.Connection, model: int) -> None:
    db.execute("SELECT ruvector_activate_model(%s)", (model,))


def classify(db: psycopg.Connection, text: str) -> dict:
    (found,) = db.execute("SELECT ruvector_classify_request(%s)", (text,)).fetchone()
    return found


def test_a_request_is_classified_out_of_the_box_as_the_plan_shows(db):
    found = classify(db, "Write a Python function that sorts a list")
    assert {"classifications", "top_category", "confidence"} <= found.keys()
    assert found["model"] == "default"
    assert found["top_category"] == found["classifications"][0][0]
    assert 0 <= found["confidence"] <= 1


def test_a_column_of_a_table_is_classified_row_by_row(db):
    db.execute("CREATE TEMP TABLE pending_requests (request_id int, content text)")
    db.execute("INSERT INTO pending_requests VALUES (1, 'translate this to French'), (2, NULL)")
    rows = db.execute(
        "SELECT request_id, ruvector_classify_request(content) AS classification "
        "FROM pending_requests ORDER BY 1"
    ).fetchall()
    assert rows[0][1]["top_category"]
    assert rows[1] == (2, None)


def test_a_trained_classifier_answers_once_it_is_switched_on_and_can_be_rolled_back(db):
    teach(db)
    first = train(db, "support")
    assert classify(db, "can I have my money back")["model"] == "default"
    use(db, first)
    found = classify(db, "can I have my money back")
    assert (found["model"], found["top_category"]) == ("support", "refund")

    use(db, train(db, "support-again", seed=1))
    assert classify(db, "is it going to rain")["model"] == "support-again"
    rows = db.execute(
        "SELECT name, state, parents, training ->> 'categories', metrics ? 'mixture', seed "
        "FROM models ORDER BY id"
    ).fetchall()
    assert rows == [
        ("support", "ready", [], "2", True, 0),
        ("support-again", "ready", [first], "2", True, 1),
    ]

    assert db.execute("SELECT ruvector_rollback_model('classifier')").fetchone() == (first,)
    assert classify(db, "is it going to rain")["model"] == "support"
    assert db.execute("SELECT ruvector_rollback_model('classifier')").fetchone() == (None,)
    assert classify(db, "is it going to rain")["model"] == "default"


def test_rows_kept_apart_for_tests_measure_the_model(db):
    teach(db)
    db.execute(
        "INSERT INTO labelled_requests (request, category, split) VALUES "
        "('give me a refund', 'refund', 'test'), ('rain or sun tomorrow', 'weather', 'test'), "
        "('what is the capital of Peru', 'elsewhere', 'out_of_scope')"
    )
    model = train(db, "measured")
    assert db.execute(
        "SELECT metrics ->> 'test_rows', (metrics ->> 'test_accuracy')::float >= 0.5, "
        "metrics -> 'scope_auroc' <> 'null' FROM models WHERE id = %s",
        (model,),
    ).fetchone() == ("2", True, True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 categories"),
        ([("a", "one"), ("b", "one")], "1 categories"),
        ([("a", "one"), ("b", "one"), ("c", "two")], "category 'two' has only one text"),
        ([("a", "one"), ("b", "one"), ("c", "two"), ("C ", "two")], "category 'two'"),
    ],
)
def test_rows_that_teach_nothing_are_refused_at_once(db, rows, message):
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO labelled_requests (request, category) VALUES (%s, %s)", rows
        )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=message) as caught:
        db.execute("SELECT ruvector_train_classifier()")
    assert caught.value.diag.message_hint
    assert db.execute("SELECT count(*) FROM models").fetchone() == (0,)


def test_contradictory_rows_fail_the_training_and_leave_the_active_model_alone(db):
    teach(db)
    use(db, train(db, "good"))
    db.execute(
        "INSERT INTO labelled_requests (request, category) "
        "VALUES ('Will it RAIN tomorrow', 'refund')"
    )
    bad = train(db, "bad")
    state, message = db.execute(
        "SELECT state, message FROM models WHERE id = %s", (bad,)
    ).fetchone()
    assert state == "failed"
    rows = db.execute(
        "SELECT id FROM labelled_requests WHERE request ILIKE 'will it rain tomorrow' ORDER BY id"
    ).fetchall()
    (first,), (second,) = rows
    assert f"two labels, first 'weather' in row {first} and 'refund' in row {second}" in message
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="failed, not ready"):
        use(db, bad)
    assert classify(db, "is it going to rain")["model"] == "good"


def test_a_training_that_fails_shows_no_text_of_a_users(db, installation):
    teach(db)
    db.execute(
        "INSERT INTO labelled_requests (request, category) "
        "VALUES ('WILL it rain tomorrow', 'refund')"
    )
    bad = train(db, "bad")
    assert finished(db, bad) == "failed"
    shown = db.execute(
        "SELECT message FROM ruvector_list_models() WHERE id = %s", (bad,)
    ).fetchone()
    logged = (installation.engine.directory / "engine.log").read_text()
    assert f"the training of model {bad} failed" in logged
    assert "rain tomorrow" not in (shown[0] + logged).casefold()


def test_a_category_that_vanishes_before_the_training_begins_fails_it(db):
    teach(db)
    use(db, train(db, "good"))
    with db.transaction():
        (late,) = db.execute("SELECT ruvector_train_classifier('late')").fetchone()
        db.execute("DELETE FROM labelled_requests WHERE category = 'refund'")
    assert finished(db, late) == "failed"
    (message,) = db.execute("SELECT message FROM models WHERE id = %s", (late,)).fetchone()
    assert "['weather']" in message
    assert classify(db, "is it going to rain")["model"] == "good"


def test_texts_said_twice_with_one_label_are_merged(db):
    teach(db)
    db.execute(
        "INSERT INTO labelled_requests (request, category) "
        "SELECT upper(request) || ' ', category FROM labelled_requests"
    )
    use(db, train(db, "merged"))
    assert classify(db, "can I have my money back")["top_category"] == "refund"


def test_a_model_that_is_damaged_says_so_and_routing_goes_on(db):
    teach(db)
    sound = train(db, "sound")
    use(db, sound)
    (cut_off,) = db.execute(
        "INSERT INTO models (kind, name, weights) "
        "SELECT kind, 'cut-off', substr(weights, 1, 1000) FROM models RETURNING id"
    ).fetchone()
    use(db, cut_off)
    with pytest.raises(psycopg.Error, match="cut-off") as caught:
        classify(db, "is it going to rain")
    assert "ruvector_rollback_model" in str(caught.value)
    assert db.execute("SELECT count(*) FROM route_decisions WHERE request = 'hi'").fetchone() == (
        1,
    )
    assert db.execute("SELECT ruvector_rollback_model('classifier')").fetchone() == (sound,)
    assert classify(db, "is it going to rain")["model"] == "sound"


def test_a_training_whose_worker_died_is_taken_over(db):
    teach(db)
    with db.transaction():
        (model,) = db.execute("SELECT ruvector_train_classifier('orphan')").fetchone()
        db.execute(
            "UPDATE models SET worker = gen_random_uuid(), "
            "heartbeat_at = now() - interval '3 minutes' WHERE id = %s",
            (model,),
        )
    deadline = time.monotonic() + 60
    while db.execute("SELECT state FROM models").fetchone() != ("ready",):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_training_gives_signs_of_life_while_its_texts_are_embedded(
    conn, database, embedder, monkeypatch
):
    teach(conn)
    (model,) = conn.execute("SELECT ruvector_train_classifier('slow')").fetchone()
    signs = "SELECT heartbeat_at FROM models WHERE id = %s"

    class Slow(EmbedderWrapper):
        def embed(self, texts):
            (before,) = conn.execute(signs, (model,)).fetchone()
            deadline = time.monotonic() + 5
            while conn.execute(signs, (model,)).fetchone() == (before,):
                assert time.monotonic() < deadline, "nobody says that the work goes on"
                time.sleep(0.01)
            return embedder.embed(texts)

    monkeypatch.setattr(heartbeat, "_SECONDS_BETWEEN_SIGNS", 0.02)
    monkeypatch.setattr(classifier, "open_embedder", lambda settings: Slow(embedder))
    with database.connection() as worker:
        assert train_next(worker)
    assert finished(conn, model) == "ready"


@pytest.fixture
def routes(db: psycopg.Connection) -> psycopg.Connection:
    db.execute("SELECT ruvector_create_route('refunds', 'Refund a payment', 'billing')")
    db.execute("SELECT ruvector_create_route('weather', 'Weather forecasts', 'weather-api')")
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO route_examples VALUES (%s, %s, true)",
            [("refunds", text) for text in TAUGHT["refund"]]
            + [("weather", text) for text in TAUGHT["weather"]],
        )
    return db


def test_thresholds_are_fitted_on_examples_and_kept_with_their_evidence(routes):
    fitted = routes.execute("SELECT * FROM ruvector_fit_routes()").fetchall()
    assert [row[0] for row in fitted] == ["refunds", "weather"]
    assert all(row[2:4] == (5, 5) for row in fitted)
    stored = routes.execute(
        "SELECT name, threshold, (threshold_evidence ->> 'f1')::float FROM routes ORDER BY 1"
    ).fetchall()
    assert stored == [(row[0], row[1], row[6]) for row in fitted]
    assert all(f1 > 0.7 for *_, f1 in stored)
    (matched,) = routes.execute(
        "SELECT route_name FROM semantic_matches WHERE query = 'I want my money back please'"
    ).fetchone()
    assert matched == "refunds"


def test_a_dearer_wrong_match_raises_the_threshold(routes):
    # One that no threshold can tell from what the route should match.
    routes.execute("INSERT INTO route_examples VALUES ('refunds', 'Refund a payment never', false)")

    def fit(wrong: float) -> float:
        return routes.execute(
            "SELECT threshold FROM ruvector_fit_routes('refunds', %s, 1)", (wrong,)
        ).fetchone()[0]

    assert fit(1000) > fit(0.001)


@pytest.mark.parametrize("wrong", ["-1", "'NaN'", "'Infinity'"])
def test_a_cost_of_a_match_that_is_no_money_is_refused(routes, wrong):
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="wrong_match_cost is"):
        routes.execute(f"SELECT * FROM ruvector_fit_routes('refunds', {wrong}, 1)")


def test_a_route_without_examples_of_both_kinds_is_an_error(db):
    db.execute("SELECT ruvector_create_route('bare', 'Nothing yet', 'nobody')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="0 examples that match"):
        db.execute("SELECT * FROM ruvector_fit_routes('bare')")
    assert db.execute("SELECT * FROM ruvector_fit_routes()").fetchall() == []


OUTCOMES = """
WITH asked AS (
    SELECT n, gen_random_uuid() AS id, n % 2 = 0 AS poem,
        CASE WHEN n % 2 = 0 THEN 'Write a poem about ' || n % 7 || ' seas'
             ELSE 'Compute ' || n || ' + ' || n * 7 % 31 END AS request,
        CASE WHEN n / 2 % 2 = 0 THEN 'logician' ELSE 'poet' END AS agent
    FROM generate_series(1, 400) AS n
), logged AS (
    INSERT INTO decisions (id, decided_at, request, request_hash, agent, optimize_for, propensity)
    SELECT id, now(), request, sha256(request::bytea), agent, 'quality', 0.5 FROM asked
)
INSERT INTO usage (decision_id, agent, cost, success)
SELECT id, agent, 0, CASE WHEN poem = (agent = 'poet') THEN n % 19 > 0 ELSE n % 19 = 0 END
FROM asked
"""


def test_quality_is_learned_from_outcomes_and_decides_once_it_is_switched_on(db):
    db.execute(
        "SELECT ruvector_register_agent(name, quality_score := 0.6)"
        " FROM unnest(ARRAY['logician', 'poet']) AS name"
    )
    db.execute(OUTCOMES)
    (model,) = db.execute("SELECT ruvector_train_quality('learned')").fetchone()
    assert finished(db, model) == "ready"
    training, metrics = db.execute(
        "SELECT training, metrics FROM models WHERE id = %s", (model,)
    ).fetchone()
    assert (training["rows"], training["agents"]) == (400, ["logician", "poet"])
    assert metrics["choices"]["gain"] > 0.2
    assert metrics["propensities"] == "recorded"
    use(db, model)
    chosen = [
        db.execute("SELECT agent_name FROM ruvector_route(%s, 'quality')", (text,)).fetchone()[0]
        for text in ("Write a poem about the sea", "Compute 5 + 6")
    ]
    assert chosen == ["poet", "logician"]


def test_without_outcomes_there_is_no_quality_to_learn(db):
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no outcome") as caught:
        db.execute("SELECT ruvector_train_quality()")
    assert "ruvector_record_usage" in caught.value.diag.message_hint
