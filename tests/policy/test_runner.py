"""The test command itself: what it counts, what it shows, when it fails."""

import contextlib
import importlib.machinery
import importlib.util
import io
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load(name: str, path: Path):
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


sys.dont_write_bytecode = True
runner = load("tests_run", ROOT / "tests" / "run")
snippets = load("tests_snippets", ROOT / "tests" / "snippets.py")


def sh(code: str) -> list[str]:
    return ["bash", "-c", code]


class RunnerTest(unittest.TestCase):
    def run_lanes(self, *lanes, ci=False):
        with tempfile.TemporaryDirectory() as tmp:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                code = runner.Runner(Path(tmp), list(lanes), ci).run_all(list(lanes))
        return code, out.getvalue().splitlines()

    def test_all_lanes_ok_passes_and_counts(self):
        code, lines = self.run_lanes(runner.Lane("a", "x", (sh("true"),)), runner.Lane("b", "x", (sh("true"),)))
        self.assertEqual((code, lines[-1]), (0, "2 passed, 0 failed, 0 skipped"))

    def test_failed_lane_fails_shows_its_log_and_does_not_stop_the_next(self):
        bad = runner.Lane("bad", "x", (sh("for i in $(seq 100); do echo line-$i; done; exit 3"), sh("echo never")))
        code, lines = self.run_lanes(bad, runner.Lane("good", "x", (sh("true"),)))
        self.assertEqual((code, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertIn("line-100", lines)
        self.assertNotIn("line-40", lines)
        self.assertNotIn("never", lines)

    def test_missing_tool_is_left_out_and_fails_only_in_ci(self):
        lanes = (runner.Lane("a", "x", (sh("true"),)), runner.Lane("b", "x", (), ("no-such-tool-anywhere",)))
        code, lines = self.run_lanes(*lanes)
        self.assertEqual((code, lines[-1]), (0, "1 passed, 0 failed, 1 skipped"))
        self.assertIn("left out: b: not on PATH: no-such-tool-anywhere", lines)
        code, lines = self.run_lanes(*lanes, ci=True)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 0 failed, 1 skipped"))

    def test_part_left_out_by_a_passing_lane_fails_in_ci_and_a_note_does_not(self):
        part = runner.Lane("a", "x", (sh("echo 'LEFT OUT: java: no JDK'"),))
        self.assertEqual(self.run_lanes(part)[0], 0)
        code, lines = self.run_lanes(part, ci=True)
        self.assertEqual((code, lines[-1]), (1, "1 passed, 0 failed, 1 skipped"))
        self.assertEqual(self.run_lanes(runner.Lane("a", "x", (sh("echo 'NOTE: by the way'"),)), ci=True)[0], 0)

    def test_hanging_lane_is_ended_with_its_children(self):
        with tempfile.NamedTemporaryFile() as alive:
            hang = runner.Lane("a", "x", (sh(f"(sleep 3; echo alive > {alive.name}) & sleep 60"),), minutes=1 / 60)
            self.assertEqual(self.run_lanes(hang)[0], 1)
            time.sleep(3)
            self.assertEqual(Path(alive.name).read_text(), "")

    def test_missing_command_fails_and_names_it(self):
        code, lines = self.run_lanes(runner.Lane("a", "x", (["tests/no-such-command"],)))
        self.assertEqual(code, 1)
        self.assertTrue(any("tests/no-such-command: No such file" in line for line in lines))

    def test_nothing_run_is_not_a_success(self):
        self.assertEqual(self.run_lanes()[0], 1)

    def test_lane_sees_no_aws_account(self):
        self.assertEqual(self.run_lanes(runner.Lane("a", "x", (sh('test -z "${AWS_PROFILE:-}${AWS_ACCESS_KEY_ID:-}"'),)))[0], 0)

    def test_unknown_lane_is_refused(self):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as refused:
            runner.main(["no-such-lane"])
        self.assertEqual(refused.exception.code, 2)


class SnippetTest(unittest.TestCase):
    def test_marked_blocks_are_found_and_sessions_joined(self):
        text = "\n".join([
            "<!-- run session=a timeout=10 -->", "```sh", "x=1", "```", "",
            "<!-- not run: needs an AWS account -->", "```sh", "cdk deploy", "```",
            "```rust", "fn main() {}", "```",
            "<!-- run session=a timeout=5 -->", "", "```sh", 'test "$x" = 1', "```", "<!-- run -->", "```sh", "true", "```"])
        shells, not_run = snippets.parse("README.md", text)
        self.assertEqual([(s.code, s.timeout) for s in shells], [('x=1\ntest "$x" = 1\n', 15), ("true\n", 300)])
        self.assertEqual(not_run, ["README.md:7: needs an AWS account"])
        self.assertIsNone(snippets.run(shells[0]))

    def test_unmarked_reasonless_unended_and_unknown_are_refused(self):
        for text in ("```sh\ntrue\n```", "<!-- not run: -->\n```sh\ntrue\n```", "<!-- run -->\n```sh\ntrue",
                     "<!-- run fast=1 -->\n```sh\ntrue\n```", "<!-- run -->\n```bash\ntrue\n```"):
            with self.assertRaises(snippets.Malformed):
                snippets.parse("README.md", text)

    def test_failing_line_in_the_middle_fails_the_shell(self):
        self.assertEqual(snippets.run(snippets.Snippet("README.md", 1, "true\nfalse\ntrue\n")), "exit code 1")

    def test_slow_shell_is_ended(self):
        self.assertEqual(snippets.run(snippets.Snippet("README.md", 1, "sleep 30\n", timeout=1)), "not done after 1 s")


if __name__ == "__main__":
    unittest.main()
