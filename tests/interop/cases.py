"""The cases: which tables, who writes what, who reads when. Rows are made up from a seed; an oracle in plain Python says what must be read."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import canon
from peers import Table, View

# A limit: the reader answers with other values.
DIFFERS = "the rows differ"

ALL_TYPES = {
    "b": "BOOLEAN", "i8": "TINYINT", "i16": "SMALLINT", "i32": "INT", "i64": "BIGINT", "f32": "FLOAT", "f64": "DOUBLE",
    "dec9": "DECIMAL(9, 3)", "dec18": "DECIMAL(18, 0)", "dec38": "DECIMAL(38, 10)", "c": "CHAR(7)", "vc": "VARCHAR(20)",
    "s": "STRING", "s_required": "STRING NOT NULL", "bin": "BINARY(4)", "vb": "VARBINARY(16)", "bytes": "BYTES", "d": "DATE",
    "t": "TIME(3)", "ts3": "TIMESTAMP(3)", "ts6": "TIMESTAMP(6)", "ts9": "TIMESTAMP(9)",
    "ltz3": "TIMESTAMP(3) WITH LOCAL TIME ZONE", "ltz6": "TIMESTAMP(6) WITH LOCAL TIME ZONE",
}
NESTED_TYPES = {
    "list": "ARRAY<INT>", "list_required": "ARRAY<STRING NOT NULL>", "map": "MAP<STRING NOT NULL, BIGINT>",
    "map_of_ints": "MAP<INT NOT NULL, DECIMAL(20, 2)>", "nested": "ROW<x INT, at TIMESTAMP(6), y ARRAY<DOUBLE>>",
    "deep": "ARRAY<ROW<name STRING, tags MAP<STRING NOT NULL, ARRAY<DATE>>>>",
}


def table(name: str, columns: dict[str, str], primary: list[str], partition: tuple = (), bucket: int = 1,
          options: dict[str, str] | None = None) -> Table:
    typed = tuple((c, canon.parse(text)) for c, text in columns.items())
    every = {"bucket": str(bucket)} | (options or {})
    return Table(f"interop.{name}", typed, tuple(primary), tuple(partition), tuple(every.items()))


class Oracle:
    """What a table must hold: the newest version of every key, by `sequence` column where there is one, else by order of writing."""

    def __init__(self, table: Table, sequence: str | None = None) -> None:
        self.table, self.newest, self.written = table, {}, 0
        self.sequence = None if sequence is None else table.index(sequence)

    def write(self, rows: list[tuple[str, list]]) -> None:
        for kind, cells in rows:
            self.written += 1
            order = (0 if self.sequence is None else cells[self.sequence], self.written)
            key = self.table.key(cells)
            if key not in self.newest or order >= self.newest[key][0]:
                self.newest[key] = (order, kind, cells)

    def compacted(self) -> None:
        """Compaction to the last level drops deletes: a row that is written later with an older sequence value lives then."""
        self.newest = {key: version for key, version in self.newest.items() if version[1] != "-D"}

    def rows(self) -> list[list]:
        return [cells for _, kind, cells in self.newest.values() if kind != "-D"]


class Maker:
    """Makes rows of a table up. Keys come from a fixed pool, so that batches overlap."""

    def __init__(self, table: Table, seed: int, pool: int, deletes: float) -> None:
        self.table, self.rng, self.deletes, self.size = table, random.Random(seed), deletes, 2 * pool
        keys = {}
        while len(keys) < pool:
            cells = self.cells()
            keys[table.key(cells)] = cells
        self.pool = list(keys.values())

    def cells(self) -> list:
        return [self.key_cell(name, t) if name in self.table.primary else canon.sample(t, self.rng) for name, t in self.table.columns]

    def key_cell(self, name: str, t: canon.Type):
        required = canon.Type(t.kind, False, t.size, t.inner)
        if name in self.table.partition:
            return self.rng.choice([19_700, 19_701, -1] if t.kind == "DATE" else ["eu", "a/b=c d%é", "\u4e2d\u6587"])
        if t.kind in ("INT", "BIGINT"):
            return self.rng.randrange(-5_000 - self.size, 5_000 + self.size)
        return canon.sample(required, self.rng)

    def batch(self, count: int, sequence: range | None = None, deletes: bool = True) -> list[tuple[str, list]]:
        rows = []
        for _ in range(count):
            cells, key = self.cells(), self.rng.choice(self.pool)
            for i, (name, _) in enumerate(self.table.columns):
                if name in self.table.primary:
                    cells[i] = key[i]
            if sequence is not None:
                cells[self.table.index("seq")] = self.rng.choice(sequence)
            rows.append(("-D" if deletes and self.rng.random() < self.deletes else "+I", cells))
        return rows

    def new_keys(self, rows: list[tuple[str, list]]) -> list[tuple[str, list]]:
        """One row a key, the last one."""
        return list({self.table.key(cells): (kind, cells) for kind, cells in rows}.values())


@dataclass
class Case:
    """A named story. `limits` are things that a reader is known not to do: reader to the text that its error must have, or `DIFFERS`."""

    name: str
    about: str
    story: Callable
    limits: dict[str, str] = field(default_factory=dict)
    # Who has to write, of those that can be left out.
    needs: tuple[str, ...] = ()


def ours(made: Table, filters: list, picked: bool = False) -> Callable:
    """We write in four batches, compact, write again, compact again; everybody reads in between."""
    def story(run) -> None:
        maker, oracle = Maker(made, seed=len(made.columns), pool=260, deletes=0.2), Oracle(made)
        written, history = [], {}
        run.siltstone.create(made)

        def write(count: int, **how) -> None:
            rows = maker.batch(count, **how)
            run.siltstone.write(made, rows)
            oracle.write(rows)
            written.extend(rows)
            history[run.latest(made)] = oracle.rows()

        write(220, deletes=False)
        run.check("first batch", made, oracle)
        for _ in range(3):
            write(150)
        run.check("before compaction", made, oracle, filters)
        run.compacted(run.siltstone.compact(made))
        run.check("after compaction", made, oracle, filters)
        if picked:
            for _ in range(6):
                write(40)
            run.compacted(run.siltstone.compact(made, full=False))
            run.check("compacted as the picker chose", made, oracle)
        write(120)
        run.check("written again", made, oracle)
        run.compacted(run.siltstone.compact(made))
        run.check("compacted again", made, oracle, filters)
        run.check_history(made, {snapshot: history[snapshot] for snapshot in list(history)[1::2]})
        if dict(made.options).get("changelog-producer") == "input":
            run.check_changelog(made, written)
    return story


def theirs(made: Table, creator: str, writers: list[str], filters: list, sequence: str | None = None, again: str | None = None) -> Callable:
    """Others write one run each in the order of `writers`, we compact, `again` writes on top of that, we compact again."""
    def story(run) -> None:
        maker, oracle = Maker(made, seed=len(made.columns) + len(writers), pool=240, deletes=0.25), Oracle(made, sequence)
        run.engines[creator].create(made)

        def write(writer: str, turn: int) -> None:
            # Later runs hold older sequence values too: every second run goes back.
            span = None if sequence is None else range(100 * (turn % 2), 100 * (turn % 2) + 150)
            rows = maker.batch(170, span, deletes=writer != "pypaimon")
            if sequence is not None:
                # Equal sequence values of one key are nobody's business here.
                rows = [(kind, [turn + 10 * c if i == made.index(sequence) else c for i, c in enumerate(cells)]) for kind, cells in rows]
                rows = maker.new_keys(rows)
            run.engines[writer].write(made, rows)
            oracle.write(rows)

        for turn, writer in enumerate(writers):
            write(writer, turn)
        run.check("as written", made, oracle, filters)
        run.compacted_to_the_end(made, oracle)
        run.check("compacted by us", made, oracle, filters)
        write(again or writers[-1], len(writers))
        run.check("written on top of our compaction", made, oracle)
        run.compacted_to_the_end(made, oracle)
        run.check("compacted by us again", made, oracle, filters)
        write("java", len(writers) + 1)
        run.java.compact(made)
        run.check("compacted by Java on top of ours", made, oracle, filters)
        expired = run.java.expire(made, keep=2)
        run.tell(expired > 3, f"Java expired {expired} snapshots, ours among them")
        run.check("after Java's expiry", made, oracle)
    return story


def large(made: Table, ours: bool) -> Callable:
    """Thousands of rows: several files a run, several row groups a file."""
    def story(run) -> None:
        maker, oracle = Maker(made, seed=11, pool=24_000, deletes=0.2), Oracle(made)
        maker.pool.sort(key=lambda cells: cells[0])
        writer = run.siltstone if ours else run.java
        writer.create(made)
        filters = [("id", "=", maker.pool[17][0]), ("id", ">=", maker.pool[22_000][0]), ("i32", "<", 0)]
        every, everywhere = maker.pool, slice(None)
        for share in (everywhere, slice(0, 8_000), slice(7_000, 12_000), slice(20_000, None)):
            maker.pool = every[share]
            rows = maker.batch(9_000)
            writer.write(made, rows)
            oracle.write(rows)
        run.check("before compaction", made, oracle, filters)
        if ours:
            run.compacted(run.siltstone.compact(made))
        else:
            run.compacted_to_the_end(made, oracle)
        files = run.newest_files(made)
        run.tell(len(files) > 1 and {level for level, _ in files} == {5}, f"the last level holds {len(files)} files", str(files))
        run.check("after compaction", made, oracle, filters)
    return story


def cut(made: Table, creator: str, filters: list) -> Callable:
    """Files of so many rows and statistics of every column, those without any null: we and Java compact in turn on top of each other. Of a
    table of ours all is by ingest, into one of Java's Java writes."""
    def story(run) -> None:
        maker, oracle = Maker(made, seed=23, pool=400, deletes=0.2), Oracle(made)
        options, ours = dict(made.options), creator == "siltstone"
        limit = int(options["target-file-row-num"])
        none = {name for name, _ in made.columns if options.get(f"fields.{name}.stats-mode") == "none"}
        (run.siltstone if ours else run.java).create(made)

        def write(writer: str, count: int) -> None:
            rows = maker.batch(count)
            (run.siltstone if writer == "siltstone" else run.engines[writer]).write(made, rows)
            oracle.write(rows)

        def compact(stage: str) -> None:
            if ours:
                oracle.compacted()
                run.compacted(run.siltstone.compact(made))
                again = run.siltstone.compact(made)
                run.tell(again["buckets"] == 0, "nothing is left to compact", f"  {again}")
            else:
                run.compacted_to_the_end(made, oracle)
            files = [entry["_FILE"] for entry in run.live_entries(made)]
            counts = sorted(file["_ROW_COUNT"] for file in files)
            run.tell(len(files) > int(options["bucket"]) and counts[-1] == limit and sum(counts) == len(oracle.rows()),
                     f"files of at most {limit} rows: {counts}", f"  {len(oracle.rows())} rows")
            # Statistics of level 0 may go up as they are; what was written by a compaction is by the options.
            told = {(str(file["_VALUE_STATS_COLS"]), *(i for i, n in enumerate(file["_VALUE_STATS"]["_NULL_COUNTS"]) if n is None)) for file in files}
            wanted = {("None", *(made.index(name) for name in sorted(none, key=made.index)))}
            run.tell(told == wanted, f"no list of columns with statistics, none of {sorted(none)}", f"  {told}\n  {wanted}")
            run.check(stage, made, oracle, filters)

        for writer in ["siltstone"] * 4 if ours else ["java"] * 4:
            write(writer, 260)
        run.check("as written", made, oracle, filters)
        compact("compacted by us")
        write("java", 200)
        run.check("Java wrote on top of that", made, oracle, filters)
        run.java.compact(made)
        run.check("compacted by Java", made, oracle, filters)
        write("siltstone" if ours else "java", 200)
        run.check("written on top of Java's compaction", made, oracle, filters)
        compact("compacted by us again")
        write("siltstone" if ours else "java", 150)
        run.java.compact(made)
        run.check("compacted by Java again", made, oracle, filters)
        run.refuses("pypaimon writes", "target-file-row-num is set on this table but pypaimon supports",
                    lambda: run.pypaimon.write(made, [("+I", cells) for cells in oracle.rows()]))
        expired = run.java.expire(made, keep=1)
        run.tell(expired > 3, f"Java expired {expired} snapshots, ours among them")
        run.check("after Java's expiry", made, oracle)
    return story


def tagged_changelog(run) -> None:
    """Java's expiry takes the changelog of a tagged snapshot away and leaves the tag, which still names it: our check and expiry take that."""
    made = table("tagged_changelog", {"id": "BIGINT"} | SMALL, ["id"], options={"changelog-producer": "input"})
    maker, oracle, tagged = Maker(made, seed=29, pool=120, deletes=0.2), Oracle(made), []
    run.siltstone.create(made)
    for turn in range(6):
        rows = maker.batch(80)
        run.siltstone.write(made, rows)
        oracle.write(rows)
        if turn == 1:
            run.java.tag(made, "kept")
            tagged = oracle.rows()
    tag = json.loads((run.folder(made) / "tag/tag-kept").read_text())
    run.java.expire(made, keep=3)
    gone = not (run.folder(made) / "manifest" / tag["changelogManifestList"]).exists()
    run.tell(gone, "Java expired the changelog that the tag names", "  it keeps it now: this case shows nothing any more")
    findings = [x for x in run.siltstone.check(made, bare=False) if not x.startswith("note: ") and "the next commit adopts it" not in x]
    run.tell(not findings, "our check finds nothing", "\n".join(findings[:5]))
    rows = maker.batch(80)
    run.siltstone.write(made, rows)
    oracle.write(rows)
    expired = run.siltstone.expire(made, keep=1)
    run.tell(expired > 0, f"we expired {expired} snapshots")
    run.check("after both expiries", made, oracle)
    types = made.types
    run.tell(sorted(run.java.lines(made, View(tag="kept"))) == sorted(canon.line(row, types) for row in tagged),
             f"Java reads the tag's {len(tagged)} rows")


def widened(bits: str | None) -> str | None:
    """The DOUBLE of a FLOAT."""
    return bits and struct.pack(">d", canon.real(bits)).hex()


def evolution(run) -> None:
    """Java changes the schema between runs; our compaction rewrites files of three schemas into the newest."""
    made = table("of_java_evolving", {"id": "BIGINT NOT NULL", "a": "INT", "b": "STRING", "c": "FLOAT", "d": "DECIMAL(10, 2)",
                                      "n": "ROW<x INT, y STRING>"}, ["id"], bucket=2)
    run.java.create(made)
    rows: list[list] = []

    def write(made: Table, seed: int) -> None:
        nonlocal rows
        maker, oracle = Maker(made, seed=seed, pool=150, deletes=0.2), Oracle(made)
        # Keys repeat from schema to schema, so that old rows are both kept and replaced.
        maker.pool = [[n, *cells[1:]] for n, cells in enumerate(maker.pool)]
        oracle.write([("+I", cells) for cells in rows])
        batch = maker.batch(90)
        run.java.write(made, batch)
        oracle.write(batch)
        rows = oracle.rows()
        run.check(f"written with schema {seed}", made, oracle)

    def compact(made: Table, stage: str) -> None:
        oracle = Oracle(made)
        oracle.write([("+I", cells) for cells in rows])
        run.compacted_to_the_end(made, oracle)
        run.check(stage, made, oracle, [(made.columns[0][0], ">=", 70)])

    write(made, 0)
    write(made, 0)
    run.java.alter(made, [["rename", ["a"], "a2"], ["drop", ["b"]], ["add", ["e"], "DATE"], ["add", ["n", "z"], "BIGINT"]])
    made = table("of_java_evolving", {"id": "BIGINT NOT NULL", "a2": "INT", "c": "FLOAT", "d": "DECIMAL(10, 2)",
                                      "n": "ROW<x INT, y STRING, z BIGINT>", "e": "DATE"}, ["id"], bucket=2)
    rows = [[i, a, c, d, n and [*n, None], None] for i, a, _, c, d, n in rows]
    write(made, 1)
    compact(made, "compacted over two schemas")
    run.java.alter(made, [["add", ["b"], "STRING"], ["type", ["a2"], "BIGINT"], ["type", ["c"], "DOUBLE"], ["rename", ["id"], "key"],
                          ["type", ["d"], "DECIMAL(12, 2)"]])
    made = table("of_java_evolving", {"key": "BIGINT NOT NULL", "a2": "BIGINT", "c": "DOUBLE", "d": "DECIMAL(12, 2)",
                                      "n": "ROW<x INT, y STRING, z BIGINT>", "e": "DATE", "b": "STRING"}, ["key"], bucket=2)
    rows = [[i, a, widened(c), d, n, e, None] for i, a, c, d, n, e in rows]
    write(made, 2)
    compact(made, "compacted over three schemas")


def compressions(run) -> None:
    """Java writes each run with another codec, one of them thin; we compact them together."""
    made = table("of_java_codecs", PARTITIONED | SMALL | NESTED_TYPES, ["id", "dt", "region"], ("region",), bucket=2)
    maker, oracle = Maker(made, seed=3, pool=200, deletes=0.2), Oracle(made)
    run.java.create(made)
    for options in ({"file_compression": codec} for codec in ("none", "snappy", "gzip", "lz4", "zstd")):
        rows = maker.batch(120)
        run.java.write(made, rows, **options)
        oracle.write(rows)
    rows = maker.batch(120)
    run.java.write(made, rows, **{"data-file_thin-mode": "true"})
    oracle.write(rows)
    run.check("as written", made, oracle, [("region", "=", "eu"), ("dt", "<", 0), ("id", ">=", 0)])
    run.compacted_to_the_end(made, oracle)
    run.check("compacted by us", made, oracle, [("region", "=", "eu"), ("dt", "<", 0), ("id", ">=", 0)])


def schema_files(run) -> None:
    """A table that we create is, field for field and option for option, what Java makes of the same words."""
    def triples():
        for name, made in (("all_types", table("schema_types", {"id": "BIGINT"} | ALL_TYPES | NESTED_TYPES, ["id"])),
                           ("partitioned", table("schema_partitioned", PARTITIONED | SMALL, ["dt", "region", "id"], ("dt", "region"), bucket=3)),
                           ("options", table("schema_options", PARTITIONED | SMALL, ["dt", "region", "id"], ("region",), options=ODD_OPTIONS))):
            run.siltstone.create(made)
            theirs = replace(made, name=made.name + "_of_java")
            run.java.create(theirs)
            ours, java = (json.loads((run.warehouse / t.name.replace(".", ".db/") / "schema/schema-0").read_text()) for t in (made, theirs))
            for part in sorted((ours.keys() | java.keys()) - {"timeMillis"}):
                yield f"{name}: {part}", ours.get(part), java.get(part)
    run.compare("schema files of both", triples())


KEY_FILTERS = [("id", "=", 0), ("id", ">=", 1_000), ("id", "<", -3_000)]
PARTITION_FILTERS = [("dt", "=", 19_700), ("region", "=", "a/b=c d%é"), ("i32", ">=", 0), *KEY_FILTERS]
SMALL = {"i32": "INT", "s": "STRING", "f64": "DOUBLE", "dec": "DECIMAL(12, 2)", "ts": "TIMESTAMP(6)"}
PARTITIONED = {"dt": "DATE", "region": "STRING", "id": "BIGINT"}
TYPED_KEYS = {"k_s": "STRING", "k_dec": "DECIMAL(10, 2)", "k_wide": "DECIMAL(30, 4)", "k_ts3": "TIMESTAMP(3)", "k_ts6": "TIMESTAMP(6)",
              "k_d": "DATE", "k_b": "BOOLEAN", "k_i16": "SMALLINT", "k_bytes": "BYTES"}

ODD_OPTIONS = {"data-file.path-directory": "data", "data-file.prefix": "run-", "changelog-producer": "input", "changelog-file.prefix": "log-",
               "file.suffix.include.compression": "true", "file.compression.per.level": "0:lz4,5:snappy", "file.compression": "gzip",
               "metadata.stats-mode": "none", "fields.s.stats-mode": "full", "manifest.compression": "snappy", "target-file-size": "8 kb",
               "manifest.target-file-size": "4 kb", "manifest.merge-min-count": "3", "partition.legacy-name": "false",
               "partition.default-name": "nothing", "num-levels": "4"}

# A few rows a file, and null where a column has no statistics. One column each of none, counts, and whole values.
CUT = {"target-file-row-num": "60", "metadata.stats-dense-store": "false", "fields.s.stats-mode": "none", "fields.f64.stats-mode": "counts",
       "fields.dec.stats-mode": "full"}
CUT_FILTERS = [("i32", ">=", 0), ("i32", "<", -1), ("s", "=", "é"), ("dec", ">=", "0.00"), ("ts", "<", 0), ("id", "=", 0), ("id", ">=", 1_000),
               ("id", "<", -3_000)]
SMALL_FILES = {"target-file-size": "64 kb"}

CASES = [
    Case("ours-all-types", "every type, nested ones too, one bucket",
         ours(table("all_types", {"id": "BIGINT"} | ALL_TYPES | NESTED_TYPES, ["id"]), [*KEY_FILTERS, ("i32", ">=", 0)], picked=True)),
    Case("ours-partitioned", "two partition columns, three buckets, nested values, a changelog",
         ours(table("partitioned", PARTITIONED | SMALL | NESTED_TYPES, ["dt", "region", "id"], ("dt", "region"), bucket=3,
                    options={"changelog-producer": "input"}), PARTITION_FILTERS)),
    Case("ours-typed-keys", "nine key columns of different types, three buckets",
         ours(table("typed_keys", TYPED_KEYS | SMALL, list(TYPED_KEYS), bucket=3), [("k_s", "=", "é"), ("k_d", "<", 0), ("i32", ">=", 0)])),
    Case("ours-multiset", "a MULTISET column",
         ours(table("multiset", {"id": "BIGINT", "m": "MULTISET<STRING NOT NULL>"}, ["id"]), []),
         limits={"pypaimon": "Unsupported data type: MULTISET"}),
    Case("schema-files", "a table created by us has the schema file that Java makes", schema_files),
    Case("theirs-pypaimon", "pypaimon writes",
         theirs(table("of_pypaimon", {"id": "BIGINT NOT NULL"} | SMALL | NESTED_TYPES, ["id"], bucket=3),
                "pypaimon", ["pypaimon"] * 4, KEY_FILTERS)),
    Case("theirs-java", "Java writes every type with deletes, partitioned",
         theirs(table("of_java", PARTITIONED | ALL_TYPES | NESTED_TYPES, ["dt", "region", "id"], ("dt", "region"), bucket=3),
                "java", ["java"] * 4, PARTITION_FILTERS)),
    Case("theirs-java-sequence", "Java writes with a sequence.field out of order",
         theirs(table("of_java_sequence", {"id": "BIGINT", "seq": "BIGINT NOT NULL"} | SMALL, ["id"], bucket=2,
                      options={"sequence.field": "seq"}), "java", ["java"] * 5,
                KEY_FILTERS, sequence="seq")),
    Case("theirs-paimon-rust", "the paimon crate writes, with deletes",
         theirs(table("of_rust", PARTITIONED | SMALL, ["dt", "region", "id"], ("dt", "region"), bucket=3), "java", ["paimon-rust"] * 4,
                PARTITION_FILTERS), needs=("paimon-rust",)),
    Case("theirs-java-typed-keys", "Java writes keys of nine types with deletes",
         theirs(table("of_java_typed_keys", TYPED_KEYS | SMALL, list(TYPED_KEYS), bucket=3), "java", ["java"] * 4,
                [("k_s", "=", "é"), ("k_d", "<", 0), ("i32", ">=", 0)])),
    Case("theirs-java-codecs", "Java writes runs of different compression, and a thin one", compressions),
    Case("theirs-java-evolving", "Java changes the schema between runs: add, drop, rename (the key too), widen", evolution),
    Case("ours-options", "path directory, prefixes, codecs per level, no statistics, small files",
         ours(table("options", PARTITIONED | SMALL, ["dt", "region", "id"], ("region", "dt"), bucket=2, options=ODD_OPTIONS), PARTITION_FILTERS)),
    Case("ours-rows-and-sparse-statistics", "files of a few rows, null for columns without statistics; Java compacts on top",
         cut(table("cut", {"id": "BIGINT"} | SMALL, ["id"], bucket=2, options=CUT), "siltstone", CUT_FILTERS)),
    Case("theirs-java-rows-and-sparse-statistics", "the same tables of Java, compacted by us",
         cut(table("of_java_cut", {"id": "BIGINT NOT NULL"} | SMALL, ["id"], bucket=2, options=CUT), "java", CUT_FILTERS)),
    Case("theirs-java-partitioned-sparse-statistics", "and with partitions, where no column has statistics",
         cut(table("of_java_cut_partitioned", {"dt": "DATE NOT NULL", "region": "STRING NOT NULL", "id": "BIGINT NOT NULL"} | SMALL,
                   ["dt", "region", "id"], ("region",), options={"target-file-row-num": "25", "metadata.stats-dense-store": "false",
                   "metadata.stats-mode": "none"} | {f"fields.{name}.stats-mode": "none" for name in ("dt", "region", "id", *SMALL)}),
             "java", [("region", "=", "a/b=c d%é"), ("dt", "<", 0), *CUT_FILTERS])),
    Case("ours-tagged-changelog", "Java expires a tagged snapshot and its changelog; our check and expiry go on", tagged_changelog),
    Case("ours-large", "thousands of rows in many small files",
         large(table("large", {"id": "BIGINT"} | SMALL, ["id"], options=SMALL_FILES), ours=True)),
    Case("theirs-java-large", "thousands of rows of Java in many small row groups and files",
         large(table("of_java_large", {"id": "BIGINT"} | SMALL, ["id"],
                     options=SMALL_FILES | {"parquet.block.size": "20000", "parquet.page.size": "4000"}), ours=False)),
    Case("theirs-in-turn", "all three write runs into one table in turn",
         theirs(table("in_turn", {"id": "BIGINT NOT NULL"} | SMALL | {"list": "ARRAY<INT>"}, ["id"], bucket=2), "java",
                ["java", "pypaimon", "paimon-rust", "java", "pypaimon", "paimon-rust"], KEY_FILTERS, again="pypaimon"), needs=("paimon-rust",)),
]
