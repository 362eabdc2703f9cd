"""Builds the programs of `shared/sim` and runs one of them. Used by `tests/sim-long` and `tests/sim-load`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(program: str, arguments: list[str]) -> int:
    """Its exit code, or that of the build."""
    # The whole workspace, as every other command builds it: -p alone would build the dependencies once more with other features.
    built = subprocess.run(["cargo", "build", "--quiet", "--workspace", "--bins", "--examples", "--locked"], cwd=ROOT)
    if built.returncode != 0:
        return built.returncode
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return subprocess.run([target / "debug" / program, *arguments]).returncode
