"""Runs a program and tells what the kernel counted for it: time, CPU time, peak memory.

Above: `run`, `beside_java`. The program is started by a Python of its own with nothing imported: a process is charged with the memory of the one
that started it, from the fork to the exec, and a benchmark holds large tables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Used:
    """What a program took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    code: int
    output: str


def measured(argv: list[str], stdin: str = os.devnull) -> Used:
    """Runs to the end; standard output is kept, standard error passes through."""
    launcher = [sys.executable, "-I", "-S", os.path.abspath(__file__), *argv]
    with open(stdin, "rb") as given:
        done = subprocess.run(launcher, stdin=given, stdout=subprocess.PIPE, check=True)
    said, figures = done.stdout.rsplit(b"\0", 1)
    return Used(**json.loads(figures), output=said.decode())


def main() -> None:
    started = time.monotonic()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    figures = {"seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime,
               "peak_mib": usage.ru_maxrss / 1024, "code": os.waitstatus_to_exitcode(status)}
    sys.stdout.buffer.write(b"\0" + json.dumps(figures).encode())


if __name__ == "__main__":
    main()
