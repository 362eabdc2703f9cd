"""Builds the functions with cargo-lambda and invokes them with a file of events/. Run by `tests/run lambda`, and with
`--release` by `tests/run package`.

The `lambda` lane builds with the profile `lambda-check` (no optimisation) and the host's compiler: cargo-lambda names a target,
and so compiles every dependency again, which must be cheap. Such a `bootstrap` runs here, not on AWS. `--release` builds what is deployed, x86_64 by the cross compiler that cargo-lambda
brings, and prints each size; arm64 as well where its Rust target is installed.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlparse

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TABLE = ["lambda.check", "--column", "id BIGINT", "--column", "note STRING", "--primary-key", "id", "--stream", "check"]
EMPTY_BATCH = ROOT / "events" / "ingest-empty.json"
READY_SECONDS = 30
MAX_UNZIPPED = 250 << 20  # Lambda's limit of a function's code


class Wrong(Exception):
    """What is not as it must be, and where to look."""


def run(*argv: str, env: dict[str, str] | None = None) -> str:
    print(f"$ {shlex.join(argv)}", flush=True)
    done = subprocess.run(argv, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          env={**os.environ, **(env or {})}, check=False)
    if done.returncode != 0:
        raise Wrong(f"exit code {done.returncode} from {shlex.join(argv)}\n{done.stdout}")
    return done.stdout


def binaries() -> dict[str, str]:
    """Role (folder under functions/) to the name of its binary, as cargo knows it and as the CDK construct expects it."""
    metadata = json.loads(run("cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"))
    found = {}
    for package in metadata["packages"]:
        folder = Path(package["manifest_path"]).parent.relative_to(ROOT)
        names = [t["name"] for t in package["targets"] if "bin" in t["kind"]]
        if folder.parts[0] == "functions":
            if len(names) != 1:
                raise Wrong(f"{folder} has {len(names)} binaries, a function has one")
            found[folder.name] = names[0]
    settings = (ROOT / "infra" / "cdk" / "lib" / "settings.ts").read_text()
    expected = dict(re.findall(r"^  (\w+): '([\w-]+)',$", settings, re.MULTILINE))
    if found != expected:
        raise Wrong(f"functions/ builds {found}, infra/cdk/lib/settings.ts deploys {expected}")
    return found


def build(names: list[str], folder: Path, *options: str) -> None:
    bins = [word for name in names for word in ("--bin", name)]
    run("cargo", "lambda", "build", "--locked", "--lambda-dir", str(folder), *options, *bins)
    for name in names:
        bootstrap = folder / name / "bootstrap"
        if not bootstrap.is_file() or bootstrap.read_bytes()[:4] != b"\x7fELF":
            raise Wrong(f"{bootstrap} is no program")
        size = bootstrap.stat().st_size
        print(f"{name}: {size / (1 << 20):.1f} MiB ({' '.join(options)})", flush=True)
        if "--release" in options and size > MAX_UNZIPPED:
            raise Wrong(f"{name} is larger than Lambda takes")


def release(names: list[str]) -> None:
    build(names, TARGET / "lambda-x86_64", "--release", "--x86-64")
    sysroot = Path(run("rustc", "--print", "sysroot").strip())
    if (sysroot / "lib" / "rustlib" / "aarch64-unknown-linux-gnu").is_dir():
        build(names, TARGET / "lambda-arm64", "--release", "--arm64")
    else:
        print("LEFT OUT: arm64: the Rust target aarch64-unknown-linux-gnu is not installed")


def exports(silt: str, state: str, stack: subprocess.Popen) -> dict[str, str]:
    """The endpoints of the running stack, once it answers."""
    for _ in range(READY_SECONDS * 5):
        if stack.poll() is not None:
            raise Wrong(f"silt local ended with {stack.returncode}")
        shown = subprocess.run([silt, "local", "--dir", state, "--exports"], text=True, capture_output=True, check=False)
        if shown.returncode == 0 and "AWS_ENDPOINT_URL_LAMBDA" in shown.stdout:
            words = [w for w in shlex.split(shown.stdout) if "=" in w]
            return dict(w.split("=", 1) for w in words)
        time.sleep(0.2)
    raise Wrong(f"silt local shows no AWS_ENDPOINT_URL_LAMBDA after {READY_SECONDS} s: {shown.stdout}{shown.stderr}")


def invoke(names: dict[str, str], folder: Path) -> None:
    """The real programs behind the local stack's Lambda, called by cargo-lambda as a developer would."""
    run("cargo", "build", "--workspace", "--bins", "--examples", "--locked")
    silt = str(TARGET / "debug" / "silt")
    with tempfile.TemporaryDirectory() as state:
        stack = subprocess.Popen([silt, "local", "--dir", state, "--port", "0", "--process", "--functions", str(folder)],
                                 cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            env = exports(silt, state, stack)
            run(silt, "--local", state, "table", "create", *TABLE, env=env)
            at = urlparse(env["AWS_ENDPOINT_URL_LAMBDA"])
            answer = run("cargo", "lambda", "invoke", names["ingest"], "--invoke-address", str(at.hostname),
                         "--invoke-port", str(at.port), "--data-file", str(EMPTY_BATCH), env=env)
            print(answer)
            if json.loads(answer) != {"batchItemFailures": []}:
                raise Wrong("ingest does not accept an empty batch")
        finally:
            try:
                os.killpg(stack.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            stack.wait()


def main() -> int:
    try:
        names = binaries()
        if sys.argv[1:] == ["--release"]:
            release(list(names.values()))
        else:
            folder = TARGET / "lambda"
            build(list(names.values()), folder, "--compiler", "cargo", "--profile", "lambda-check")
            invoke(names, folder)
            if os.environ.get("CI") == "true":
                # Nothing after this lane uses them, and a machine of CI is as small as it may be.
                for left in (TARGET / "lambda-check", *TARGET.glob("*/lambda-check")):
                    shutil.rmtree(left)
    except Wrong as e:
        print(f"failed: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
