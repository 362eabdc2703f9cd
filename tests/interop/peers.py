"""The engines: each creates, writes, reads or compacts tables of one warehouse directory, with rows as cells (see canon.py).

Siltstone is two programs: `interop` (tests/e2e) makes our own tables, as only a process with a pointer can; `silt` reads any table and
compacts those of others, as a user would.
"""

from __future__ import annotations

import collections
import contextlib
import json
import subprocess
import threading
from dataclasses import dataclass, replace
from functools import cached_property
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

    @cached_property
    def types(self) -> list[canon.Type]:
        return [t for _, t in self.columns]

    def project(self, columns: tuple[str, ...]) -> Table:
        """With these columns only, in this order."""
        types = dict(self.columns)
        return replace(self, columns=tuple((name, types[name]) for name in columns))

    @cached_property
    def places(self) -> dict[str, int]:
        return {name: place for place, (name, _) in enumerate(self.columns)}

    def index(self, column: str) -> int:
        return self.places[column]

    @cached_property
    def key_places(self) -> list[int]:
        return [self.index(c) for c in self.primary]

    def key(self, cells: list) -> str:
        """The primary key as text."""
        return json.dumps([cells[i] for i in self.key_places])

    def json(self) -> dict:
        return {"table": self.name, "columns": [[name, t.json()] for name, t in self.columns], "partition_keys": self.partition,
                "primary_keys": self.primary, "options": dict(self.options)}


@dataclass(frozen=True)
class View:
    """What is read of a table: all of its newest rows, or those of a condition, some columns, an older snapshot or a tag."""

    where: tuple | None = None
    columns: tuple[str, ...] | None = None
    snapshot: int | None = None
    tag: str | None = None

    def options(self) -> dict[str, str]:
        return at(self.snapshot) | ({} if self.tag is None else {"scan.tag-name": self.tag})


def where_text(table: Table, where: tuple) -> str:
    """A condition as `silt scan --where` takes it."""
    column, operator, cell = where
    literal = canon.record(cell, dict(table.columns)[column])
    if isinstance(literal, bool):
        return f"{column} {operator} {str(literal).lower()}"
    quoted = str(literal).replace("'", "''")
    return f"{column} {operator} " + (str(literal) if isinstance(literal, int) else f"'{quoted}'")


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
            trace = answer.get("trace", "").splitlines()
            causes = [line for line in trace if line.startswith("Caused by")]
            raise Refused("\n".join([answer["error"], *causes, *trace[:25]]))
        return answer

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it may have ended on its own
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

    @staticmethod
    def take(path: Path) -> list[str]:
        """The lines of a file, which goes."""
        text = path.read_text()
        path.unlink()
        return text.split("\n")[:-1]


class Siltstone:
    """Makes and feeds our own tables."""

    def __init__(self, program: Path, warehouse: Path, scratch: Scratch) -> None:
        self.scratch, self.process = scratch, Process([str(program), str(warehouse)])

    def create(self, table: Table) -> None:
        self.process.ask(verb="create", **table.json())

    def write(self, table: Table, rows: list[tuple[str, list]]) -> None:
        """One batch of plain-JSON records. A delete has the key alone when its values are nobody's business. Where a column tells the
        kind, nothing else does."""
        path, options = self.scratch.file("jsonl"), dict(table.options)
        every, told = "sequence.field" in options, "rowkind.field" in options
        with path.open("w") as out:
            for place, (kind, cells) in enumerate(rows):
                if told:
                    kept, fields = list(enumerate(table.columns)), {}
                elif kind == "-U":
                    # A stream of upserts has no old images.
                    continue
                elif kind == "-D":
                    kept = [(i, c) for i, c in enumerate(table.columns) if c[0] in table.primary or every or place % 2]
                    fields = {"_op": "d"}
                else:
                    kept, fields = list(enumerate(table.columns)), {}
                fields |= {name: canon.record(cells[i], t) for i, (name, t) in kept}
                out.write(json.dumps(fields) + "\n")
        self.process.ask(verb="ingest", table=table.name, records=str(path))

    def compact(self, table: Table, full: bool = True, bare: bool = False) -> dict:
        return self.process.ask(verb="compact", table=table.name, full=full, bare=bare)

    def expire(self, table: Table, keep: int) -> int:
        return self.process.ask(verb="expire", table=table.name, keep=keep)["expired"]

    def check(self, table: Table, bare: bool) -> list[str]:
        return self.process.ask(verb="check", table=table.name, bare=bare)["findings"]

    def lines(self, table: Table, view: View) -> list[str]:
        """Rows as canonical text, read as a table without pointer. It has no projections: there `silt` only leaves columns out."""
        path = self.scratch.file("jsonl")
        condition = view.where and where_text(table, view.where)
        self.process.ask(verb="scan", table=table.name, out=str(path), filter=condition, snapshot=view.snapshot, tag=view.tag,
                         bare=True)
        rows = Scratch.take(path)
        if view.columns is None:
            return rows
        read = table.project(view.columns)
        columns = list(zip(*map(json.loads, rows), strict=True)) or [()] * len(table.columns)
        return list(map(canon.joined, zip(*(canon.column_texts(columns[table.index(name)], t) for name, t in read.columns), strict=True)))

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

    def lines_of_run(self, *words: str) -> list[str]:
        # Not `splitlines`: text holds line ends of Unicode.
        return self.run(*words).split("\n")[:-1]

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        words = ["scan", table.name] + ([] if snapshot is None else ["--snapshot", str(snapshot)])
        if where:
            words += ["--where", where_text(table, where)]
        rows = [canon.loads(line) for line in self.lines_of_run(*words)]
        return [[canon.from_silt(row[name], t) for name, t in table.columns] for row in rows]

    def compact(self, table: Table) -> list[dict]:
        return [json.loads(line) for line in self.lines_of_run("compact", "--full", table.name)]

    def files(self, table: Table) -> list[dict]:
        return [json.loads(line) for line in self.lines_of_run("files", table.name)]

    def changelog(self, table: Table) -> list[tuple[str, list]]:
        """Kinds and rows of all snapshots' changelogs."""
        rows = [canon.loads(line) for line in self.lines_of_run("scan", "--changelog", table.name)]
        return [(row["_kind"], [canon.from_silt(row[name], t) for name, t in table.columns]) for row in rows]


class PyPaimon:
    """pypaimon, in this process."""

    # Files of a thousand rows are read sooner by one thread of Python than by several.
    ALONE = {"read.parallelism": "1", "scan.manifest.parallelism": "1"}

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
        return rows_of(self.arrow(table, View(where, snapshot=snapshot)), table)

    def lines(self, table: Table, view: View) -> list[str]:
        return lines_of(self.arrow(table, view), table, view)

    def arrow(self, table: Table, view: View) -> pa.Table:
        builder = self.catalog.get_table(table.name).copy(self.ALONE | view.options()).new_read_builder()
        if view.where:
            column, operator, cell = view.where
            make, t = builder.new_predicate_builder(), dict(table.columns)[column]
            literal = pa.array([canon.to_python(cell, t)], t.arrow())[0].as_py()
            chosen = {"=": make.equal, ">=": make.greater_or_equal, "<": make.less_than}[operator]
            builder = builder.with_filter(chosen(column, literal))
        if view.columns is not None:
            builder = builder.with_projection(list(view.columns))
        return builder.new_read().to_arrow(builder.new_scan().plan().splits())


class Java:
    """Java Paimon in one JVM."""

    def __init__(self, argv: list[str], warehouse: Path, scratch: Scratch) -> None:
        self.scratch, self.process = scratch, Process([*argv, str(warehouse), str(scratch.directory / "java")])
        # Rows by metadata, of the table that was read last as a whole.
        self.counted: tuple[str, int] | None = None

    def create(self, table: Table) -> None:
        self.process.ask(verb="create", **table.json())

    def write(self, table: Table, rows: list[tuple[str, list]], **options: str) -> None:
        """One commit; `options` are dynamic table options, underscores for dots."""
        path = self.scratch.file("jsonl")
        # Where a column tells the kind, nothing else does.
        told = "rowkind.field" in dict(table.options)
        path.write_text("".join(json.dumps(("+I" if told else kind, cells)) + "\n" for kind, cells in rows))
        dotted = {name.replace("_", "."): value for name, value in options.items()}
        self.process.ask(verb="write", table=table.name, rows=str(path), options=dotted)

    def compact(self, table: Table) -> None:
        self.process.ask(verb="compact", table=table.name)

    def alter(self, table: Table, changes: list[list]) -> None:
        self.process.ask(verb="alter", table=table.name, changes=changes)

    def expire(self, table: Table, keep: int) -> int:
        return self.process.ask(verb="expire", table=table.name, keep=keep)["expired"]

    def tag(self, table: Table, name: str) -> None:
        self.process.ask(verb="tag", table=table.name, name=name)

    def untag(self, table: Table, name: str) -> None:
        self.process.ask(verb="untag", table=table.name, name=name)

    def count(self, table: Table) -> int | None:
        """Rows by metadata alone, where that can tell: of the last read of the whole table, whose plan counted them."""
        name, rows = self.counted or (None, -1)
        if name != table.name:
            raise ValueError(f"{table.name} was not read as a whole")
        return None if rows < 0 else rows

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        return self._read(table.name, where, at(snapshot))

    def lines(self, table: Table, view: View) -> list[str]:
        path = self.scratch.file("jsonl")
        answer = self.process.ask(verb="read", table=table.name, out=str(path), filter=view.where, columns=view.columns, options=view.options())
        if view == View():
            self.counted = (table.name, answer["counted"])
        return Scratch.take(path)

    def changelog(self, table: Table, first: int, last: int) -> list[tuple[str, list]]:
        """Kinds and rows of the changelogs of the snapshots after `first` up to `last`."""
        between = {"incremental-between": f"{first},{last}", "incremental-between-scan-mode": "changelog"}
        return [(row[0], row[1:]) for row in self._read(f"{table.name}$audit_log", None, between)]

    def _read(self, name: str, where, options: dict[str, str]) -> list[list]:
        path = self.scratch.file("jsonl")
        self.process.ask(verb="read", table=name, out=str(path), filter=where, options=options)
        return [json.loads(line) for line in Scratch.take(path)]

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
        if "rowkind.field" not in dict(table.options):
            data = data.append_column(pa.field("_VALUE_KIND", pa.int8(), False), pa.array([KINDS[kind] for kind, _ in rows], pa.int8()))
        with pa.ipc.new_file(path, data.schema) as out:
            out.write_table(data)
        self.process.ask(verb="write", table=table.name, rows=str(path))

    def read(self, table: Table, where=None, snapshot: int | None = None) -> list[list]:
        data = self.arrow(table, View(where, snapshot=snapshot))
        return [] if data is None else rows_of(data, table)

    def lines(self, table: Table, view: View) -> list[str]:
        data = self.arrow(table, view)
        return [] if data is None else lines_of(data, table, view)

    def arrow(self, table: Table, view: View) -> pa.Table | None:
        path = self.scratch.file("arrow")
        self.process.ask(verb="read", table=table.name, out=str(path), filter=view.where, columns=view.columns, options=view.options())
        if not path.exists():
            return None
        data = pa.ipc.open_file(path).read_all()
        path.unlink()
        return data

    def close(self) -> None:
        self.process.close()


def at(snapshot: int | None) -> dict[str, str]:
    return {} if snapshot is None else {"scan.snapshot-id": str(snapshot)}


def lines_of(data: pa.Table, table: Table, view: View) -> list[str]:
    if data.num_rows == 0:
        return []
    read = table if view.columns is None else table.project(view.columns)
    return list(map(canon.joined, zip(*(canon.column_texts(canon.from_arrow(data[name], t), t) for name, t in read.columns), strict=True)))


def rows_of(data: pa.Table, table: Table) -> list[list]:
    if data.num_rows == 0:
        return []
    columns = [canon.from_arrow(data[name], t) for name, t in table.columns]
    return [list(cells) for cells in zip(*columns, strict=True)]
