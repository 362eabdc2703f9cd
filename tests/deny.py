"""Checks the dependency graph against deny.toml. Run by `tests/run deny`.

Licences, bans and sources need no network beyond the crates themselves. Advisories need the advisory database: where it
cannot be reached that is said and is no failure, since a machine without it cannot do anything about it; an advisory that
is found fails.
"""

import subprocess
import sys

UNREACHABLE = ("failed to fetch advisory database", "failed to clone", "unable to access")


def main() -> int:
    fixed = subprocess.run(["cargo-deny", "--locked", "--offline", "check", "licenses", "bans", "sources"], check=False)
    found = subprocess.run(["cargo-deny", "--locked", "check", "advisories"], check=False, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if found.returncode != 0 and any(text in found.stdout for text in UNREACHABLE):
        print("NOTE: advisories were not checked: the advisory database cannot be reached from here")
        return fixed.returncode
    print(found.stdout)
    return fixed.returncode or found.returncode


if __name__ == "__main__":
    sys.exit(main())
