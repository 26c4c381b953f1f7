"""Decisions as they were kept, judged by another policy."""

from __future__ import annotations

import pytest

from tinydancer.errors import NotReady
from tinydancer.learning.hindsight import Outcome, choices, read_log

CHEAP = {"agent": "cheap", "cost": 0.1, "latency_ms": 10.0, "quality": 0.5, "fit": 0.2}
GOOD = {"agent": "good", "cost": 1.0, "latency_ms": 10.0, "quality": 0.9, "fit": 0.2}


def test_a_policy_chooses_among_those_who_were_candidates() -> None:
    log = read_log(
        [
            Outcome("good", 1.0, [GOOD, CHEAP], 1.0, 1.0, 10.0),
            Outcome("good", 1.0, [GOOD], 1.0, 1.0, 10.0),
        ]
    )
    assert [log.agents[column] for column in choices(log, "cost")] == ["cheap", "good"]


@pytest.mark.parametrize("candidates", [(), (CHEAP,)], ids=["a team's member", "of another agent"])
def test_decisions_that_had_no_other_choice_support_no_judgement(candidates) -> None:
    with pytest.raises(NotReady, match="no kept decision"):
        read_log([Outcome("good", 1.0, candidates, 1.0, 1.0, 10.0)])
