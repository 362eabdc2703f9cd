"""Runs the shell blocks of the READMEs, so that what they tell a reader to type works. Run by `tests/run snippets`.

Every ```sh block is preceded by one marker line:

    <!-- run -->                        run in a shell of its own, from the top of the repository
    <!-- run session=NAME -->           blocks of one file with the same NAME are one shell, in order; what they leave
                                        running in the background is ended with it
    <!-- run timeout=SECONDS -->        instead of 300
    <!-- not run: why -->               cannot be run here; the reason is for the reader of the source

A block without a marker is an error, and so is a README.md of the top level without a block that is run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = ("README.md", "functions/*/README.md", "infra/*/README.md", "tests/*/README.md")
MARKER = re.compile(r"^<!--\s*(run|not run:)\s*(.*?)\s*-->$")
SETTING = re.compile(r"^(session|timeout)=([A-Za-z0-9_-]+)$")
DEFAULT_TIMEOUT = 300


class Malformed(Exception):
    """A README does not say what to do with one of its blocks."""


@dataclass
class Snippet:
    """One shell to start: the code of its blocks, where the first begins, and how long it may take."""

    path: str
    line: int
    code: str
    session: str | None = None
    timeout: int = DEFAULT_TIMEOUT


def settings(where: str, text: str) -> tuple[str | None, int]:
    session, timeout = None, DEFAULT_TIMEOUT
    for word in text.split():
        match = SETTING.match(word)
        if match is None or (match[1] == "timeout" and not match[2].isdigit()):
            raise Malformed(f"{where}: unknown setting `{word}`; there are session=NAME and timeout=SECONDS")
        if match[1] == "session":
            session = match[2]
        else:
            timeout = int(match[2])
    return session, timeout


def parse(path: str, text: str) -> tuple[list[Snippet], list[str]]:
    """The shells of one README, and a line for each block that is not run."""
    shells: list[Snippet] = []
    not_run: list[str] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith("```"):
            at += 1
            continue
        language, start, where = lines[at][3:].strip(), at + 1, f"{path}:{at + 1}"
        end = next((n for n in range(start, len(lines)) if lines[n].rstrip() == "```"), None)
        if end is None:
            raise Malformed(f"{where}: the block has no end")
        if language in ("sh", "bash", "shell", "console"):
            before = next((x.strip() for x in reversed(lines[:at]) if x.strip()), "")
            marker = MARKER.match(before)
            if language != "sh" or marker is None or (marker[1] == "not run:" and not marker[2]):
                raise Malformed(f"{where}: a shell block is ```sh with `<!-- run -->` or `<!-- not run: why -->` before it")
            if marker[1] == "run":
                add(shells, where, Snippet(path, start, "\n".join(lines[start:end]) + "\n", *settings(where, marker[2])))
            else:
                not_run.append(f"{where}: {marker[2]}")
        at = end + 1
    return shells, not_run


def add(shells: list[Snippet], where: str, new: Snippet) -> None:
    """Blocks of one session become one shell; its time is the sum of theirs."""
    for shell in shells:
        if new.session is not None and shell.session == new.session:
            shell.code += new.code
            shell.timeout += new.timeout
            return
    if not new.code.strip():
        raise Malformed(f"{where}: the block is empty")
    shells.append(new)


def run(shell: Snippet, cwd: Path = ROOT) -> str | None:
    """Runs one shell; None, or what went wrong."""
    child = subprocess.Popen(["bash", "-euo", "pipefail", "-c", shell.code], cwd=cwd, stdin=subprocess.DEVNULL,
                             start_new_session=True)
    try:
        code = child.wait(timeout=shell.timeout)
        return None if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        return f"not done after {shell.timeout} s"
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def main() -> int:
    failures: list[str] = []
    ran: dict[str, int] = {}
    for path in sorted({p for pattern in PATTERNS for p in ROOT.glob(pattern)}):
        name = str(path.relative_to(ROOT))
        try:
            shells, not_run = parse(name, path.read_text())
        except Malformed as e:
            failures.append(str(e))
            continue
        for text in not_run:
            print(f"not run: {text}")
        for shell in shells:
            print(f"--- {name}:{shell.line}\n{shell.code}", flush=True)
            start = time.monotonic()
            wrong = run(shell)
            print(f"--- {wrong or 'ok'} after {time.monotonic() - start:.1f} s", flush=True)
            ran[name] = ran.get(name, 0) + 1
            if wrong:
                failures.append(f"{name}:{shell.line}: {wrong}")
    if not failures and "README.md" not in ran:
        failures.append("README.md has no block that is run")
    for text in failures:
        print(f"failed: {text}")
    print(f"{sum(ran.values())} shells run")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
