#!/usr/bin/env python3
"""From boto3 to pypaimon: 10,000 rows put into a 4-shard stream of a local stack are all read over S3 within 10 seconds.

Then again with the stack killed (kill -9) between the commit of a batch and its publication, and started again: the producer
goes on where it was refused, and every row is there once. Run by `tests/run e2e`; `--json` prints the figures for machines.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pypaimon import CatalogFactory

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
ROWS = 10_000
ROUNDS = 5
LIMIT_SECONDS = 10.0
READY_SECONDS = 30
TABLE = "check.orders"


class Wrong(Exception):
    """What is not as it must be."""


def silt(*argv: str) -> str:
    done = subprocess.run([BINARIES / "silt", *argv], text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise Wrong(f"silt {shlex.join(argv)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def started(state: str, *argv: str) -> tuple[subprocess.Popen, dict[str, str]]:
    """A stack and its endpoints, once it answers."""
    stack = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for _ in range(READY_SECONDS * 10):
        if stack.poll() is not None:
            raise Wrong(f"{shlex.join(argv)} ended with {stack.returncode}")
        shown = subprocess.run([BINARIES / "silt", "local", "--dir", state, "--exports", "--json"], text=True,
                               capture_output=True, check=False)
        if shown.returncode == 0:
            return stack, json.loads(shown.stdout)
        time.sleep(0.1)
    raise Wrong(f"{shlex.join(argv)} does not answer after {READY_SECONDS} s")


def records(first: int, count: int, value: str) -> list[dict]:
    return [{"Data": json.dumps({"id": i, "value": f"{value}-{i}"}).encode(), "PartitionKey": str(i)}
            for i in range(first, first + count)]


def produce(kinesis, waiting: list[dict], stack: subprocess.Popen, until: float) -> list[dict]:
    """Puts records; what is refused or gets no answer is put again, until it is taken.

    Returns what is left to put once the stack has died: on a slow machine that is before the last record is taken.
    """
    while waiting:
        call, rest = waiting[:500], waiting[500:]
        try:
            answer = kinesis.put_records(StreamName="orders", Records=call)
            again = [r for r, told in zip(call, answer["Records"]) if "ErrorCode" in told]
        except (BotoCoreError, ClientError) as error:
            if stack.poll() is not None:
                return waiting
            if time.monotonic() > until:
                raise Wrong(f"the stream takes nothing any more: {error}") from error
            time.sleep(0.1)
            again = call
        waiting = again + rest
    return waiting


def rows(endpoints: dict[str, str]) -> dict[int, str]:
    """What pypaimon reads; a key that comes twice is an error."""
    catalog = CatalogFactory.create({
        "warehouse": "s3://siltstone/warehouse", "s3.endpoint": endpoints["AWS_ENDPOINT_URL_S3"], "s3.access-key": "test",
        "s3.secret-key": "test", "s3.region": "us-east-1", "s3.path.style.access": "true"})
    read = catalog.get_table(TABLE).new_read_builder()
    found = read.new_read().to_arrow(read.new_scan().plan().splits())
    if found is None:
        return {}
    ids, values = found["id"].to_pylist(), found["value"].to_pylist()
    if len(set(ids)) != len(ids):
        raise Wrong(f"{len(ids) - len(set(ids))} keys are read twice")
    return dict(zip(ids, values))


def wait_for(endpoints: dict[str, str], count: int, began: float) -> float:
    """Seconds from `began` until `count` rows are read."""
    while True:
        found = rows(endpoints)
        seconds = time.monotonic() - began
        if len(found) == count:
            return seconds
        if seconds > 60:
            raise Wrong(f"{len(found)} of {count} rows after {seconds:.0f} s")
        time.sleep(0.05)


def check(endpoints: dict[str, str], state: str, wanted: dict[int, str]) -> None:
    found = rows(endpoints)
    if found != wanted:
        different = [i for i in wanted if found.get(i) != wanted[i]]
        raise Wrong(f"{len(different)} rows differ, the first is {different[:1]}; {len(found)} read, {len(wanted)} produced")
    silt("--local", state, "check", TABLE)


def run(state: str) -> dict:
    local = [str(BINARIES / "silt"), "local", "--dir", state, "--port", "0"]
    stack, endpoints = started(state, *local)
    client = lambda: boto3.client("kinesis", endpoint_url=endpoints["AWS_ENDPOINT_URL_KINESIS"], region_name="us-east-1",
                                  aws_access_key_id="test", aws_secret_access_key="test",
                                  config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=5))
    try:
        silt("--local", state, "table", "create", TABLE, "--column", "id BIGINT", "--column", "value STRING", "--primary-key", "id",
             "--stream", "orders", "--shards", "4", "--option", "bucket=4")
        wanted: dict[int, str] = {}
        seconds = []
        for number in range(ROUNDS):
            began = time.monotonic()
            if produce(client(), records(number * ROWS, ROWS, "first"), stack, began + 30):
                raise Wrong(f"the stack ended with {stack.poll()} while it took records")
            wanted |= {i: f"first-{i}" for i in range(number * ROWS, (number + 1) * ROWS)}
            seconds.append(wait_for(endpoints, len(wanted), began))
        check(endpoints, state, wanted)

        stack.send_signal(signal.SIGTERM)
        stack.wait()
        snapshots = [json.loads(line)["id"] for line in silt("--local", state, "snapshots", TABLE, "--json").splitlines()]
        stack, same = started(state, str(BINARIES / "crashing_stack"), state, str(max(snapshots) + 2))
        if same != endpoints:
            raise Wrong("the stack came back at other addresses")
        first = ROUNDS * ROWS
        half = ROWS // 2
        left = produce(client(), records(first, half, "killed"), stack, time.monotonic() + 30)
        killed = stack.wait(timeout=30)
        if killed != -signal.SIGKILL:
            raise Wrong(f"the stack was to be killed before a publication, it ended with {killed}")
        began = time.monotonic()
        stack, _ = started(state, *local)
        if produce(client(), left + records(first + half, ROWS - half, "killed"), stack, began + 30):
            raise Wrong(f"the stack ended with {stack.poll()} while it took records")
        wanted |= {i: f"killed-{i}" for i in range(first, first + ROWS)}
        after_kill = wait_for(endpoints, len(wanted), began)
        check(endpoints, state, wanted)
    finally:
        stack.kill()
        stack.wait()
    ordered = sorted(seconds)
    return {"rows": ROWS, "rounds": ROUNDS, "p50_s": round(ordered[len(ordered) // 2], 2), "p99_s": round(ordered[-1], 2),
            "after_kill_s": round(after_kill, 2), "unpublished_snapshot": max(snapshots) + 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as state:
            figures = run(state)
        for name in ("p99_s", "after_kill_s"):
            if figures[name] > LIMIT_SECONDS:
                raise Wrong(f"{name} is {figures[name]}, over {LIMIT_SECONDS}")
    except Wrong as wrong:
        print(f"failed: {wrong}")
        return 1
    if args.json:
        print(json.dumps(figures))
    else:
        print(f"{ROWS} rows are readable p50 {figures['p50_s']} s, p99 {figures['p99_s']} s after the first put; "
              f"{figures['after_kill_s']} s after a restart that followed a kill before publication")
    return 0


if __name__ == "__main__":
    sys.exit(main())
