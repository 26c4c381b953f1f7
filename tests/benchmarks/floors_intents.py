"""Holds the figures of `tinydancer eval intents --json` to floors, a point under what was reached.

    tinydancer eval intents --data DIR --json > figures.json
    python tests/benchmarks/floors_intents.py figures.json

Ends with 1 where a figure is under its floor or missing. Tiers that were not measured (MiniLM needs
to be fetched) are named and passed over.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HEAD = "fastgrnn+words"
ACCURACY = {
    ("static", "banking77", "full"): 92.9,
    ("static", "banking77", "10-shot"): 84.3,
    ("static", "clinc150", "full"): 93.4,
    ("static", "clinc150", "10-shot"): 88.8,
    ("minilm", "banking77", "full"): 93.4,
    ("minilm", "banking77", "10-shot"): 86.5,
    ("minilm", "clinc150", "full"): 95.1,
    ("minilm", "clinc150", "10-shot"): 91.1,
    ("cascade", "banking77", "full"): 93.4,
    ("cascade", "banking77", "10-shot"): 86.4,
    ("cascade", "clinc150", "full"): 95.1,
    ("cascade", "clinc150", "10-shot"): 91.0,
}
SCOPE = {("static", "clinc150", "full"): 96.2, ("minilm", "clinc150", "full"): 97.3}
MOST_ECE = 0.03
COVERED = (94.0, 96.0)
"""What sets that state 95% may cover."""
MOST_ESCALATED = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    rows = json.loads(parser.parse_args().figures.read_text("utf-8"))
    found = {
        (row["tier"], row["dataset"], row["setting"], row["metric"]): row["value"]
        for row in rows
        if row["head"] == HEAD
    }
    tiers = {key[0] for key in found}
    below = []
    for metric, floors in (("accuracy", ACCURACY), ("auroc", SCOPE)):
        for key, floor in floors.items():
            if key[0] not in tiers:
                continue
            value = found.get((*key, metric), float("-inf"))
            if value < floor:
                below.append(f"{' '.join(key)}: {metric} is {value:.2f}, the floor {floor}")
    for (tier, dataset, setting, metric), value in found.items():
        where = f"{tier} {dataset} {setting}"
        if metric == "ece" and value > MOST_ECE:
            below.append(f"{where}: the calibration error is {value:.4f}, at most {MOST_ECE}")
        if metric == "coverage" and not COVERED[0] <= value <= COVERED[1]:
            below.append(f"{where}: sets cover {value:.2f}%, not {COVERED[0]} to {COVERED[1]}%")
        if metric == "escalated" and value > MOST_ESCALATED:
            below.append(f"{where}: {value:.1f}% escalated, at most {MOST_ESCALATED}%")
    for tier in sorted({key[0] for key in ACCURACY} - tiers):
        print(f"not measured: {tier}")
    print("\n".join(below) if below else "every figure is at its floor or above")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
