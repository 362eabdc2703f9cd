"""Spark and Flink: each reads, writes and maintains tables by SQL, in one JVM that stays up; see engines/ for the programs."""

from __future__ import annotations

import json
from pathlib import Path

import canon
from peers import Process, Scratch, Table


class SqlPeer:
    """What Spark and Flink have in common. `CALL` takes named arguments; their procedures are Paimon's."""

    def __init__(self, argv: list[str], warehouse: Path, scratch: Scratch) -> None:
        self.scratch, self.process = scratch, Process([*argv, str(warehouse), str(scratch.directory / "sql")])

    def run(self, statement: str) -> list[list]:
        return self.process.ask(sql=statement)["rows"]

    def call(self, procedure: str, table: Table, **arguments) -> list[list]:
        given = {"table": table.name, **arguments}
        return self.run(f"CALL sys.{procedure}({', '.join(f'`{name}` => {quoted(value)}' for name, value in given.items())})")

    def tag(self, table: Table, name: str) -> None:
        """Tags the newest snapshot."""
        self.call("create_tag", table, tag=name)

    def untag(self, table: Table, name: str) -> None:
        self.call("delete_tag", table, tag=name)

    def expire(self, table: Table, keep: int) -> None:
        self.call("expire_snapshots", table, retain_max=keep, retain_min=keep)

    def remove_orphans(self, table: Table, older_than: str) -> None:
        """Removes files that nothing names and that are older than a time of UTC."""
        self.call("remove_orphan_files", table, older_than=older_than)

    def insert(self, table: Table, source: Table) -> None:
        """Inserts all rows of another table with the same columns."""
        self.run(f"INSERT INTO {name(table)} SELECT * FROM {name(source)}")

    def delete(self, table: Table, where: tuple) -> None:
        self.run(f"DELETE FROM {name(table)} WHERE {condition(table, where)}")

    def read(self, table: Table, where: tuple | None = None, snapshot: int | None = None, tag: str | None = None) -> list[list]:
        columns = ", ".join(f"`{column}`" for column, _ in table.columns)
        statement = f"SELECT {columns} FROM {name(table)}{self.at(snapshot, tag)}" + (f" WHERE {condition(table, where)}" if where else "")
        path = self.scratch.file("jsonl")
        self.process.ask(sql=statement, out=str(path))
        return [json.loads(line) for line in Scratch.take(path)]

    def count(self, table: Table) -> int:
        return self.run(f"SELECT COUNT(*) FROM {name(table)}")[0][0]

    def at(self, snapshot: int | None, tag: str | None) -> str:
        """What stands behind a table's name to read it as it was."""
        raise NotImplementedError

    def close(self) -> None:
        self.process.close()


class Spark(SqlPeer):
    def at(self, snapshot: int | None, tag: str | None) -> str:
        return "" if snapshot is None and tag is None else f" VERSION AS OF {snapshot if tag is None else quoted(tag)}"

    def compact(self, table: Table) -> None:
        self.call("compact", table)


class Flink(SqlPeer):
    def at(self, snapshot: int | None, tag: str | None) -> str:
        options = {"scan.snapshot-id": snapshot, "scan.tag-name": tag}
        hints = ", ".join(f"'{option}' = '{value}'" for option, value in options.items() if value is not None)
        return hints and f" /*+ OPTIONS({hints}) */"

    def compact(self, table: Table) -> None:
        self.call("compact", table, compact_strategy="full")

    def remove_orphans(self, table: Table, older_than: str) -> None:
        # As a job on a cluster, which is the default, Flink 2.0.0 in one JVM removes nothing and says so.
        self.call("remove_orphan_files", table, older_than=older_than, mode="local")


def name(table: Table) -> str:
    return ".".join(f"`{part}`" for part in ("paimon", *table.name.split(".")))


def quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def condition(table: Table, where: tuple) -> str:
    """(column, operator, cell) as SQL, for columns of whole numbers, text and dates."""
    column, operator, cell = where
    t = dict(table.columns)[column]
    literal = quoted(canon.record(cell, t))
    return f"`{column}` {operator} {'DATE ' if t.kind == 'DATE' else ''}{literal}"
