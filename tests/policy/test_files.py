"""Committed files that no compiler looks at: lock files, copies of the lint policy, the record of what runs."""

import json
import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ("format", "lsm", "commit", "decode")


class LockFiles(unittest.TestCase):
    def test_npm_lock_names_no_registry_host(self):
        lock = json.loads((ROOT / "infra/cdk/package-lock.json").read_text())
        named = [name for name, package in lock["packages"].items() if "resolved" in package]
        self.assertEqual(named, [])
        self.assertTrue(all("integrity" in p or p.get("inBundle") for n, p in lock["packages"].items() if n), "each package has its hash")

    def test_every_python_package_is_pinned(self):
        lines = (ROOT / "tests/requirements.txt").read_text().splitlines()
        packages = [line.split("#")[0].strip() for line in lines]
        self.assertEqual([p for p in packages if p and not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", p)], [])


class LintPolicy(unittest.TestCase):
    def test_core_crates_share_one_policy(self):
        texts = {name: (ROOT / "shared" / name / "clippy.toml").read_text() for name in CORE}
        self.assertEqual(len(set(texts.values())), 1, "shared/{format,lsm,commit,decode}/clippy.toml must be equal")

    def test_core_policy_holds_everything_of_the_workspace_policy(self):
        core = (ROOT / "shared/format/clippy.toml").read_text()
        for line in (ROOT / "clippy.toml").read_text().splitlines():
            if line.strip() and not line.startswith(("#", "disallowed-", "]")):
                self.assertIn(line.strip(), core)

    def test_core_crates_do_not_switch_the_policy_off(self):
        for name in CORE:
            for source in (ROOT / "shared" / name / "src").rglob("*.rs"):
                if source.name == "tests.rs":
                    continue
                for line in source.read_text().splitlines():
                    if "cfg_attr(test" not in line:
                        self.assertNotRegex(line, r"clippy::disallowed_", str(source))


class Commands(unittest.TestCase):
    def test_ci_runs_the_test_command_and_nothing_else(self):
        script = (ROOT / ".ci/run").read_text().splitlines()
        code = [line for line in script if line and not line.startswith("#")]
        self.assertEqual(code, ["set -eu", 'cd "$(dirname "$0")/.."', "exec python3 tests/run"])


if __name__ == "__main__":
    unittest.main()
