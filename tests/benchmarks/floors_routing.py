"""Holds the figures of `tinydancer eval routing --json` to floors, a point under what was reached.

    tinydancer eval routing --data DIR --json > figures.json
    python tests/benchmarks/floors_routing.py figures.json

Ends with 1 where a figure is under its floor or missing. Tiers that were not measured (MiniLM needs
to be fetched) are named and passed over.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

RECOVERED = {
    ("learned/static", "routellm_mmlu"): 0.678,
    ("learned/static", "routellm_gsm8k"): 0.656,
    ("learned/minilm", "routellm_mmlu"): 0.691,
    ("learned/minilm", "routellm_gsm8k"): 0.668,
}
STANDARD_ERRORS = 2.0
"""How far below the best single model a router's accuracy may be, in standard errors."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    rows = json.loads(parser.parse_args().figures.read_text("utf-8"))
    found = {(row["router"], row["table"], row["metric"]): row["value"] for row in rows}
    routers = {router for router, _, _ in found}
    below = []
    for (router, table), floor in RECOVERED.items():
        if router not in routers:
            continue
        value = found.get((router, table, "APGR"), float("-inf"))
        if value < floor:
            below.append(f"{router} {table}: APGR is {value:.3f}, the floor {floor}")
    for (router, table, metric), gain in found.items():
        if metric != "accuracy_over_best_single":
            continue
        error = found[router, table, "accuracy_over_best_single_se"]
        if gain < -STANDARD_ERRORS * error:
            below.append(f"{router} {table}: {gain:+.4f} ± {error:.4f} over the best single model")
    for router in sorted({router for router, _ in RECOVERED} - routers):
        print(f"not measured: {router}")
    print("\n".join(below) if below else "every figure is at its floor or above")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
