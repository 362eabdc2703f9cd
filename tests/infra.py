"""Checks the infrastructure descriptions: types, unit tests, synthesis of the sample stacks, cfn-lint. Run by `tests/run infra`.

Synthesis uses no build of the functions: a placeholder `bootstrap` stands in for each, as what is checked is the template.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CDK = ROOT / "infra" / "cdk"
FUNCTIONS = ("siltstone-ingest", "siltstone-compact", "siltstone-maintain")


def run(*argv: str, env: dict[str, str] | None = None) -> None:
    print(f"$ {' '.join(argv)}", flush=True)
    subprocess.run(argv, cwd=CDK, check=True, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})


def placeholders(folder: Path) -> None:
    for name in FUNCTIONS:
        (folder / name).mkdir(parents=True)
        (folder / name / "bootstrap").write_text("#!/bin/sh\nexit 1\n")


def main() -> int:
    with tempfile.TemporaryDirectory() as tmp:
        code, out = Path(tmp) / "lambda", Path(tmp) / "cdk.out"
        placeholders(code)
        run("npm", "test", "--silent")
        # The tests have compiled it: no second `tsc`.
        run("npx", "--no-install", "cdk", "synth", "--app", "node build/bin/siltstone.js", "--quiet", "--no-notices", "--output", str(out),
            "--context", f"codeDir={code}", env={"CDK_DISABLE_VERSION_CHECK": "1"})
        templates = sorted(out.glob("*.template.json"))
        if not templates:
            print("synthesis wrote no template")
            return 1
        for template in templates:
            kinds = [r["Type"] for r in json.loads(template.read_text())["Resources"].values()]
            print(f"{template.name}: {len(kinds)} resources, {kinds.count('AWS::Lambda::Function')} functions", flush=True)
        # W3005: a DependsOn that a reference already implies, which CDK writes for the order of bucket and permission.
        run("cfn-lint", "--ignore-checks", "W3005", "--", *map(str, templates))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as e:
        print(f"failed with exit code {e.returncode}: {' '.join(map(str, e.cmd))}")
        sys.exit(1)
