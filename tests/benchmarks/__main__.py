"""Runs the benchmarks one after the other: python -m tests.benchmarks [NAME ...]."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}


def main(names: list[str]) -> int:
    """Exit code 1 where one of them fails."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or BENCHMARKS:
        print(f"== {name}", flush=True)
        module = f"tests.benchmarks.{BENCHMARKS[name].stem}"
        failed |= subprocess.run([sys.executable, "-m", module], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
