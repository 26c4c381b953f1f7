"""Building the native front door by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_pg_config_that_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    missing = tmp_path / "pg_config"
    done = subprocess.run(
        [sys.executable, "-m", "tinydancer_fdw.native.build", str(missing), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {missing} can't be run: ")
    assert len(done.stderr.splitlines()) == 1
