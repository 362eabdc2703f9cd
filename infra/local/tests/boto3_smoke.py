#!/usr/bin/env python3
"""boto3 and the AWS command line against the local stack.

Uses the stack that the environment points at (AWS_ENDPOINT_URL_S3 and so on), or starts `examples/serve` of this crate, which
must be built. Every check is an assertion.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parents[3]


def code(call, **arguments) -> str:
    """The error code of a call that must fail."""
    try:
        call(**arguments)
    except ClientError as e:
        return e.response["Error"]["Code"]
    raise AssertionError(f"{call.__name__} succeeded")


def check_s3(s3, name: str) -> None:
    s3.create_bucket(Bucket=name)
    assert name in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    key = "dt=2026-01-01/a b+ü%20.bin"
    put = s3.put_object(Bucket=name, Key=key, Body=b"hello", Metadata={"who": "me"}, ContentType="text/plain")
    got = s3.get_object(Bucket=name, Key=key)
    assert (got["Body"].read(), got["ETag"], got["Metadata"], got["ContentType"]) == (
        b"hello", put["ETag"], {"who": "me"}, "text/plain")
    assert s3.get_object(Bucket=name, Key=key, Range="bytes=1-2")["Body"].read() == b"el"
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=name)["Contents"]] == [key]
    assert [p["Prefix"] for p in s3.list_objects(Bucket=name, Delimiter="/")["CommonPrefixes"]] == ["dt=2026-01-01/"]
    assert code(s3.put_object, Bucket=name, Key=key, Body=b"x", IfNoneMatch="*") == "PreconditionFailed"
    assert code(s3.put_object, Bucket=name, Key=key, Body=b"x", IfMatch='"0"') == "PreconditionFailed"
    assert code(s3.put_object, Bucket=name, Key="none", Body=b"x", IfMatch=put["ETag"]) == "NoSuchKey"
    s3.put_object(Bucket=name, Key=key, Body=b"two", IfMatch=put["ETag"])
    assert code(s3.get_object, Bucket=name, Key="none") == "NoSuchKey"

    upload = s3.create_multipart_upload(Bucket=name, Key="big")["UploadId"]
    bodies = [b"a" * (5 << 20), b"tail"]
    parts = []
    for number, body in enumerate(bodies, 1):
        sent = s3.upload_part(Bucket=name, Key="big", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    assert len(s3.list_parts(Bucket=name, Key="big", UploadId=upload)["Parts"]) == 2
    done = s3.complete_multipart_upload(Bucket=name, Key="big", UploadId=upload, MultipartUpload={"Parts": parts},
                                        IfNoneMatch="*")
    assert done["ETag"].endswith('-2"')
    assert s3.get_object(Bucket=name, Key="big")["Body"].read() == b"".join(bodies)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(os.urandom(20 << 20))
        s3.upload_file(str(file), name, "managed")
        s3.download_file(name, "managed", f"{file}.back")
        assert file.read_bytes() == Path(f"{file}.back").read_bytes()

    for n in range(5):
        s3.put_object(Bucket=name, Key=f"page/{n}", Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix="page/", PaginationConfig={"PageSize": 2})
    assert [o["Key"] for p in pages for o in p["Contents"]] == [f"page/{n}" for n in range(5)]
    keys = [o["Key"] for o in s3.list_objects_v2(Bucket=name)["Contents"]]
    s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": key} for key in keys]})
    s3.delete_bucket(Bucket=name)


def check_dynamodb(dynamodb, name: str) -> None:
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": a, "AttributeType": "S"} for a in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}])
    item = {"pk": {"S": "p"}, "sk": {"S": "s"}, "rev": {"N": "1"}}
    dynamodb.put_item(TableName=name, Item=item, ConditionExpression="attribute_not_exists(pk)")
    again = {"TableName": name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
    assert code(dynamodb.put_item, **again) == "ConditionalCheckFailedException"
    key = {"pk": item["pk"], "sk": item["sk"]}
    assert dynamodb.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"] == item
    dynamodb.delete_table(TableName=name)


def read_all(kinesis, name: str, shard: str) -> list[bytes]:
    start = {"StreamName": name, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator, found = kinesis.get_shard_iterator(**start)["ShardIterator"], []
    while iterator:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=100)
        found += [record["Data"] for record in answer["Records"]]
        iterator = answer.get("NextShardIterator") if answer["Records"] or answer["MillisBehindLatest"] else None
    return found


def check_kinesis(kinesis, name: str) -> None:
    kinesis.create_stream(StreamName=name, ShardCount=1, Tags={"team": "data"})
    kinesis.get_waiter("stream_exists").wait(StreamName=name)
    assert kinesis.list_tags_for_stream(StreamName=name)["Tags"] == [{"Key": "team", "Value": "data"}]
    records = [{"Data": f"{n}".encode(), "PartitionKey": f"k{n}"} for n in range(500)]
    assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0
    shard = kinesis.list_shards(StreamName=name)["Shards"][0]["ShardId"]
    assert read_all(kinesis, name, shard) == [r["Data"] for r in records]
    kinesis.split_shard(StreamName=name, ShardToSplit=shard, NewStartingHashKey=str(1 << 127))
    shards = kinesis.list_shards(StreamName=name)["Shards"]
    assert [s.get("ParentShardId") for s in shards] == [None, shard, shard]
    put = kinesis.put_record(StreamName=name, Data=b"x", PartitionKey="k", ExplicitHashKey=str(1 << 127))
    assert put["ShardId"] == shards[2]["ShardId"] and len(put["SequenceNumber"]) == 56
    kinesis.merge_shards(StreamName=name, ShardToMerge=shards[1]["ShardId"], AdjacentShardToMerge=shards[2]["ShardId"])
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 1 and summary["StreamARN"].endswith(f":000000000000:stream/{name}")
    assert code(kinesis.describe_stream, StreamName="missing") == "ResourceNotFoundException"
    kinesis.delete_stream(StreamName=name)


def check_command_line(aws: str, name: str) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run([aws, *arguments], check=True, capture_output=True, text=True, timeout=60)
        return done.stdout

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").write_bytes(os.urandom(20 << 20))
        run("s3", "mb", f"s3://{name}")
        run("s3", "cp", f"{folder}/in", f"s3://{name}/x/in")
        run("s3", "cp", f"s3://{name}/x/in", f"{folder}/out")
        assert (Path(folder) / "in").read_bytes() == (Path(folder) / "out").read_bytes()
    assert "x/in" in run("s3", "ls", f"s3://{name}", "--recursive")
    run("s3", "rb", f"s3://{name}", "--force")
    run("kinesis", "create-stream", "--stream-name", name, "--shard-count", "1")
    assert name in run("kinesis", "list-streams")
    run("kinesis", "delete-stream", "--stream-name", name)
    run("dynamodb", "list-tables")


def start_stack(folder: str) -> subprocess.Popen:
    """Starts a stack in a directory, and takes over what it exports."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    stack = subprocess.Popen([target / "debug" / "examples" / "serve", folder], stdout=subprocess.PIPE, text=True)
    for line in stack.stdout:
        if line.startswith("export "):
            variable, value = line.removeprefix("export ").strip().split("=", 1)
            os.environ[variable] = value
        if line.startswith("# ready"):
            return stack
    raise SystemExit(f"the stack ended at start with {stack.wait()}")


def clients():
    return boto3.client("s3", config=Config(s3={"addressing_style": "path"})), boto3.client("dynamodb"), boto3.client("kinesis")


def check_kill(stack: subprocess.Popen, folder: str, name: str) -> subprocess.Popen:
    """What was answered is there after a kill -9, at the same addresses. The stack that came back."""
    s3, dynamodb, kinesis = clients()
    s3.create_bucket(Bucket=name)
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "N"}])
    kinesis.create_stream(StreamName=name, ShardCount=1)
    for n in range(20):
        s3.put_object(Bucket=name, Key=f"{n:02}", Body=f"{n}".encode())
        dynamodb.put_item(TableName=name, Item={"pk": {"N": f"{n}"}})
        kinesis.put_record(StreamName=name, Data=f"{n}".encode(), PartitionKey="k")
    before = os.environ["AWS_ENDPOINT_URL_S3"]
    stack.kill()
    stack.wait(timeout=10)
    stack = start_stack(folder)
    try:
        assert os.environ["AWS_ENDPOINT_URL_S3"] == before
        s3, dynamodb, kinesis = clients()
        wanted = [f"{n}".encode() for n in range(20)]
        assert [s3.get_object(Bucket=name, Key=f"{n:02}")["Body"].read() for n in range(20)] == wanted
        assert dynamodb.scan(TableName=name, ConsistentRead=True)["Count"] == 20
        assert read_all(kinesis, name, "shardId-000000000000") == wanted
    except BaseException:
        stack.kill()
        raise
    return stack


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = None if os.environ.get("AWS_ENDPOINT_URL_S3") else start_stack(folder)
        try:
            name = f"smoke-{uuid.uuid4().hex[:8]}"
            s3, dynamodb, kinesis = clients()
            check_s3(s3, name)
            check_dynamodb(dynamodb, name)
            check_kinesis(kinesis, name)
            if aws := shutil.which("aws", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"):
                check_command_line(aws, name)
            else:
                print("LEFT OUT: AWS command line: no aws on PATH")
            if stack:
                stack = check_kill(stack, folder, f"{name}-kill")
        finally:
            if stack:
                stack.terminate()
                stack.wait(timeout=10)
    print("the local stack serves boto3 and the AWS command line")


if __name__ == "__main__":
    main()
