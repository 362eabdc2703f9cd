"""The engines: each creates, writes, reads or compacts tables of one warehouse directory, with rows as cells (see canon.py).

Siltstone is two programs: `interop` (tests/e2e) makes our own tables, as only a process with a pointer can; `silt` reads any table and
compacts those of others, as a user would.
"""

from __future__ import annotations

import collections
import json
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import canon

KINDS = {"+I": 0, "-U": 1, "+U": 2, "-D": 3}


class Refused(Exception):
    """An engine answered with an error."""


@dataclass(frozen=True)
class Table:
    """What a table looks like, whoever makes it."""

    name: str
    columns: tuple[tuple[str, canon.Type], ...]
    primary: tuple[str, ...]
    partition: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = (("bucket", "1"),)

    @property
    def types(self) -> list[canon.Type]:
        return [t for _, t in self.columns]

    def index(self, column: str) -> int:
        return [name for name, _ in self.columns].index(column)

    def key(self, cells: list) -> str:
        """The primary key as text."""
        return json.dumps([cells[self.index(c)] for c in self.primary])

    def json(self) -> dict:
        return {"table": self.name, "columns": [[name, t.json()] for name, t in self.columns], "partition_keys": self.partition,
                "primary_keys": self.primary, "options": dict(self.options)}


class Process:
    """A program that answers one JSON line on standard output for each on standard input; its last words are kept for errors."""

    def __init__(self, argv: list[str]) -> None:
        self.name = Path(argv[0]).name
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: collections.deque[str] = collections.deque(maxlen=40)
        threading.Thread(target=lambda: self.said.extend(self.child.stderr), daemon=True).start()

    def ask(self, **command) -> dict:
        try:
            self.child.stdin.write(json.dumps(command) + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self.child.wait(10)} instead of an answer:\n{''.join(self.said)}")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused("\n".join([answer["error"], *answer.get("trace", "").splitlines()[:25]]))
        return answer

    def close(self) -> None:
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()


class Scratch:
    """Fresh file names for rows on their way."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.count = directory, 0

    def file(self, end: str) -> Path:
        self.count += 1
        return self.directory / f"{self.count:04}.{end}"


class Siltstone:
    """Makes and feeds our own tables."""

    def __init__(self, program: Path, warehouse: Path, scratch: Scratch) -> None:
        self.scratch, self.process = scratch, Process([str(program), str(warehouse)])

    def create(self, table: Table) -> None:
        self.process.ask(verb="create", **table.json())

    def write(self, table: Table, rows: list[tuple[str, list]]) -> None:
        """One batch of plain-JSON records. A delete has the key alone when its values are nobody's business."""
        path = self.scratch.file("jsonl")
        with path.open("w") as out:
            for place, (kind, cells) in enumerate(rows):
                if kind == "-D":
                    kept = [(i, c) for i, c in enumerate(table.columns) if c[0] in table.primary or place % 2]
                    fields = {"_op": "d"}
                else:
                    kept, fields = list(enumerate(table.columns)), {}
                fields |= {name: canon.record(cells[i], t) for i, (name, t) in kept}
                out.write(json.dumps(fields) + "\n")
        self.process.ask(verb="ingest", table=table.name, records=str(path))

    def compact(self, table: Table, full: bool = True) -> dict:
        return self.process.ask(verb="compact", table=table.name, full=full)

    def encode(self, types: list[canon.Type], rows: list[list], buckets: list[int]) -> list[dict]:
        """BinaryRow bytes, hash and buckets of rows."""
        records = [{"key": 1} | {f"c{i}": canon.record(c, t) for i, (c, t) in enumerate(zip(row, types, strict=True))} for row in rows]
        return self.process.ask(verb="encode", types=[t.json() for t in types], records=records, buckets=buckets)["rows"]

    def close(self) -> None:
        self.process.close()


class Silt:
    """The command line over a bare warehouse."""

    def __init__(self, program: Path, warehouse: Path) -> None:
        self.program, self.warehouse = program, warehouse

    def run(self, *words: str) -> str:
        argv = [str(self.program), *words, "--warehouse", f"file://{self.warehouse}", "--json"]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(f"silt {' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        words = ["scan", table.name] + ([] if snapshot is None else ["--snapshot", str(snapshot)])
        if where:
            column, operator, cell = where
            t = dict(table.columns)[column]
            literal = canon.record(cell, t)
            words += ["--where", f"{column} {operator} " + (str(literal) if isinstance(literal, int) else f"'{literal}'")]
        rows = [canon.loads(line) for line in self.run(*words).splitlines()]
        return [[canon.from_silt(row[name], t) for name, t in table.columns] for row in rows]

    def compact(self, table: Table) -> list[dict]:
        return [json.loads(line) for line in self.run("compact", "--full", table.name).splitlines()]

    def files(self, table: Table) -> list[dict]:
        return [json.loads(line) for line in self.run("files", table.name).splitlines()]

    def changelog(self, table: Table) -> list[tuple[str, list]]:
        """Kinds and rows of all snapshots' changelogs."""
        rows = [canon.loads(line) for line in self.run("scan", "--changelog", table.name).splitlines()]
        return [(row["_kind"], [canon.from_silt(row[name], t) for name, t in table.columns]) for row in rows]


class PyPaimon:
    """pypaimon, in this process."""

    def __init__(self, warehouse: Path) -> None:
        from pypaimon import CatalogFactory
        self.catalog = CatalogFactory.create({"warehouse": str(warehouse)})

    def create(self, table: Table) -> None:
        from pypaimon import Schema
        schema = Schema.from_pyarrow_schema(canon.arrow_schema(list(table.columns)), partition_keys=list(table.partition),
                                            primary_keys=list(table.primary), options=dict(table.options))
        self.catalog.create_database(table.name.split(".")[0], True)
        self.catalog.create_table(table.name, schema, False)

    def write(self, table: Table, rows: list[tuple[str, list]]) -> None:
        if any(kind != "+I" for kind, _ in rows):
            raise ValueError("pypaimon takes inserts only")
        self.write_arrow(table, canon.to_arrow([cells for _, cells in rows], list(table.columns)))

    def write_arrow(self, table: Table, rows: pa.Table) -> None:
        """Inserts, as one commit."""
        builder = self.catalog.get_table(table.name).new_batch_write_builder()
        write, commit = builder.new_write(), builder.new_commit()
        write.write_arrow(rows)
        commit.commit(write.prepare_commit())
        write.close()
        commit.close()

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        return rows_of(self.arrow(table, where, snapshot), table)

    def arrow(self, table: Table, where=None, snapshot: int | None = None) -> pa.Table:
        builder = self.catalog.get_table(table.name).copy(at(snapshot)).new_read_builder()
        if where:
            column, operator, cell = where
            make = builder.new_predicate_builder()
            literal = canon._python(cell, dict(table.columns)[column])
            if dict(table.columns)[column].kind == "DATE":
                literal = pa.array([cell], pa.date32())[0].as_py()
            chosen = {"=": make.equal, ">=": make.greater_or_equal, "<": make.less_than}[operator]
            builder = builder.with_filter(chosen(column, literal))
        return builder.new_read().to_arrow(builder.new_scan().plan().splits())


class Java:
    """Java Paimon in one JVM."""

    def __init__(self, argv: list[str], warehouse: Path, scratch: Scratch) -> None:
        self.scratch, self.process = scratch, Process([*argv, str(warehouse), str(scratch.directory / "java")])

    def create(self, table: Table) -> None:
        self.process.ask(verb="create", **table.json())

    def write(self, table: Table, rows: list[tuple[str, list]], **options: str) -> None:
        """One commit; `options` are dynamic table options, underscores for dots."""
        path = self.scratch.file("jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dotted = {name.replace("_", "."): value for name, value in options.items()}
        self.process.ask(verb="write", table=table.name, rows=str(path), options=dotted)

    def compact(self, table: Table) -> None:
        self.process.ask(verb="compact", table=table.name)

    def alter(self, table: Table, changes: list[list]) -> None:
        self.process.ask(verb="alter", table=table.name, changes=changes)

    def expire(self, table: Table, keep: int) -> int:
        return self.process.ask(verb="expire", table=table.name, keep=keep)["expired"]

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        return self._read(table.name, where, at(snapshot))

    def changelog(self, table: Table, first: int, last: int) -> list[tuple[str, list]]:
        """Kinds and rows of the changelogs of the snapshots after `first` up to `last`."""
        between = {"incremental-between": f"{first},{last}", "incremental-between-scan-mode": "changelog"}
        return [(row[0], row[1:]) for row in self._read(f"{table.name}$audit_log", None, between)]

    def _read(self, name: str, where, options: dict[str, str]) -> list[list]:
        path = self.scratch.file("jsonl")
        self.process.ask(verb="read", table=name, out=str(path), filter=where, options=options)
        return [json.loads(line) for line in path.read_text().splitlines()]

    def encode(self, types: list[canon.Type], rows: list[list], buckets: list[int]) -> list[dict]:
        return self.process.ask(verb="encode", types=[t.json() for t in types], rows=rows, buckets=buckets)["rows"]

    def decode(self, types: list[canon.Type], rows: list[str], buckets: list[int]) -> list[dict]:
        return self.process.ask(verb="decode", types=[t.json() for t in types], rows=rows, buckets=buckets)["rows"]

    def close(self) -> None:
        self.process.close()


class PaimonRust:
    """The `paimon` crate in one process."""

    def __init__(self, program: Path, warehouse: Path, scratch: Scratch) -> None:
        self.scratch, self.process = scratch, Process([str(program), str(warehouse)])

    def write(self, table: Table, rows: list[tuple[str, list]]) -> None:
        path = self.scratch.file("arrow")
        data = canon.to_arrow([cells for _, cells in rows], list(table.columns))
        data = data.append_column(pa.field("_VALUE_KIND", pa.int8(), False), pa.array([KINDS[kind] for kind, _ in rows], pa.int8()))
        with pa.ipc.new_file(path, data.schema) as out:
            out.write_table(data)
        self.process.ask(verb="write", table=table.name, rows=str(path))

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        path = self.scratch.file("arrow")
        self.process.ask(verb="read", table=table.name, out=str(path), filter=where, options=at(snapshot))
        return rows_of(pa.ipc.open_file(path).read_all(), table) if path.exists() else []

    def close(self) -> None:
        self.process.close()


def at(snapshot: int | None) -> dict[str, str]:
    return {} if snapshot is None else {"scan.snapshot-id": str(snapshot)}


def rows_of(data: pa.Table, table: Table) -> list[list]:
    if data.num_rows == 0:
        return []
    columns = [canon.from_arrow(data[name], t) for name, t in table.columns]
    return [list(cells) for cells in zip(*columns, strict=True)]
