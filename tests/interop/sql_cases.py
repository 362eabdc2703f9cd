"""The cases of the lane `engines`: Spark and Flink read and maintain our tables, and we compact theirs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import cases
from cases import Case, Maker, Oracle, table
from peers import Refused, Table

DAY = 86_400
# pypaimon 2.1.0 on a manifest of Paimon 0.9.0, Spark's connector.
OLD_MANIFEST = "'_VALUE_STATS_COLS'"
KEYS = ["dt", "region", "id"]
# Nested types that Paimon 0.9.0, Spark's connector, reads and writes as they are.
NESTED = {name: cases.NESTED_TYPES[name] for name in ("list", "map", "map_of_ints")}
COLUMNS = cases.PARTITIONED | cases.SMALL | NESTED
FILTERS = [("id", "=", 0), ("id", ">=", 1_000), ("dt", "=", 19_700), ("region", "=", "a/b=c d%é"), ("i32", ">=", 0)]


class Writer:
    """Our ingest into one of our tables, the oracle beside it."""

    def __init__(self, run, made: Table, seed: int) -> None:
        self.run, self.made, self.oracle = run, made, Oracle(made)
        self.maker, self.history = Maker(made, seed, pool=200, deletes=0.2), {}
        run.siltstone.create(made)

    def write(self, count: int) -> None:
        rows = self.maker.batch(count)
        self.run.siltstone.write(self.made, rows)
        self.oracle.write(rows)
        self.history[self.run.latest(self.made)] = self.oracle.rows()

    def check(self, stage: str, filters: list = ()) -> None:
        """Everybody reads; our own checks find nothing, whether they go by the pointer or by the directory alone."""
        self.run.check(stage, self.made, self.oracle, filters)
        findings = self.run.siltstone.check(self.made, bare=False)
        # That others expired snapshots is worth a note, and nothing else is.
        wrong = [found for found in findings if not re.match("note: .* another engine expired snapshots", found)]
        self.run.tell(not wrong, f"{stage}: silt check finds nothing wrong", f"  {wrong}")
        self.run.silt.run("check", "--deep", self.made.name)


def read(made: Table, filters: list) -> Callable:
    """We write and compact, they read: whole, by filters, older snapshots, a tag."""
    def story(run) -> None:
        ours = Writer(run, made, seed=5)
        for _ in range(3):
            ours.write(150)
        ours.check("before compaction", filters)
        run.java.tag(made, "before")
        tagged = ours.oracle.rows()
        run.compacted(run.siltstone.compact(made))
        ours.check("after compaction", filters)
        ours.write(100)
        ours.check("written again", filters)
        run.check_history(made, ours.history)
        for engine in ("spark", "flink"):
            if engine not in run.limits:
                run.same(f"tag: {engine}", run.engines[engine].read(made, tag="before"), tagged, made)
                count = run.engines[engine].count(made)
                run.tell(count == len(ours.oracle.rows()), f"count: {engine} counts {count} rows")
    return story


def maintained(made: Table, engine: str) -> Callable:
    """They compact, tag, expire and remove orphans; our ingest goes on before and after each, and adopts what it finds."""
    def story(run) -> None:
        ours, peer = Writer(run, made, seed=7), run.engines[engine]
        for _ in range(3):
            ours.write(120)
        ours.check("before")

        before = run.latest(made)
        peer.compact(made)
        if engine == "spark":
            run.limits["pypaimon"] = OLD_MANIFEST
        run.tell(run.latest(made) > before, f"{engine} compacted: snapshot {run.latest(made)} on top of our {before}")
        levels = {level for level, _ in run.newest_files(made)}
        run.tell(levels == {5}, f"all files are in the last level, {levels}")
        run.check(f"compacted by {engine}", made, ours.oracle, FILTERS)
        ours.write(120)
        ours.check("our ingest on top of that compaction", FILTERS)
        run.compacted(run.siltstone.compact(made))
        ours.check("our compaction on top")

        peer.tag(made, "kept")
        kept = ours.oracle.rows()
        ours.write(120)
        ours.check(f"written after {engine}'s tag")
        peer.compact(made)
        ours.write(120)
        ours.check("our ingest on top of the second compaction")

        snapshots = run.snapshots(made)
        peer.expire(made, keep=2)
        left = run.snapshots(made)
        run.tell(left == snapshots[-2:], f"{engine} expired {len(snapshots) - len(left)} snapshots, {left} are left", f"  of {snapshots}")
        run.check(f"expired by {engine}", made, ours.oracle)
        ours.write(120)
        ours.check("our ingest after the expiry")
        for reader in ("spark", "flink"):
            run.same(f"tag after expiry: {reader}", run.engines[reader].read(made, tag="kept"), kept, made)

        orphan = plant_orphan(run.folder(made))
        peer.remove_orphans(made, time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - DAY)))
        run.tell(not orphan.exists(), f"{engine} removed the orphan {orphan.name}")
        run.check(f"orphans removed by {engine}", made, ours.oracle, FILTERS)
        ours.write(120)
        ours.check("our ingest after the removal of orphans", FILTERS)
        for reader in ("spark", "flink"):
            run.same(f"tag in the end: {reader}", run.engines[reader].read(made, tag="kept"), kept, made)
        run.compacted(run.siltstone.compact(made))
        # Our commits have merged the manifests that Spark's old connector wrote.
        run.limits.pop("pypaimon", None)
        ours.check("our last compaction", FILTERS)
    return story


def plant_orphan(folder: Path) -> Path:
    """A data file that nothing names. All files of the table become two days old: only what names them keeps the others."""
    example = next(folder.rglob("bucket-*/*.parquet"))
    orphan = example.with_name("data-00000000-0000-0000-0000-000000000000-0.parquet")
    orphan.write_bytes(example.read_bytes())
    then = time.time() - 2 * DAY
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
    return orphan


def written(made: Table, engine: str) -> Callable:
    """They insert and delete, `silt` compacts, they go on on top of that and compact; everybody reads in between."""
    def story(run) -> None:
        peer, maker, oracle = run.engines[engine], Maker(made, seed=13, pool=200, deletes=0.0), Oracle(made)
        run.java.create(made)

        def insert(turn: int) -> None:
            # Rows of every type reach the engine from a table of their own, not as literals.
            source = Table(f"{made.name}_source_{turn}", made.columns, made.primary, made.partition, made.options)
            rows = maker.new_keys(maker.batch(140))
            run.java.create(source)
            run.java.write(source, rows)
            peer.insert(made, source)
            if engine == "spark":
                run.limits["pypaimon"] = OLD_MANIFEST
            oracle.write(rows)

        def delete(where: tuple) -> None:
            gone = [cells for cells in oracle.rows() if run.matches(made, cells, where)]
            peer.delete(made, where)
            oracle.write([("-D", cells) for cells in gone])
            run.tell(bool(gone), f"{engine} deleted {len(gone)} rows")

        for turn in range(3):
            insert(turn)
        run.check("as inserted", made, oracle, FILTERS)
        delete(("id", ">=", 3_000))
        run.check("as deleted", made, oracle, FILTERS)
        run.compacted_to_the_end(made, oracle)
        run.check("compacted by us", made, oracle, FILTERS)
        insert(3)
        delete(("id", "<", -3_000))
        run.check("written on top of our compaction", made, oracle)
        run.compacted_to_the_end(made, oracle)
        # By now our commits have merged the old manifests into new ones.
        run.limits.pop("pypaimon", None)
        run.check("compacted by us again", made, oracle, FILTERS)
        insert(4)
        peer.compact(made)
        run.check(f"compacted by {engine} on top of ours", made, oracle, FILTERS)
        run.silt.run("check", "--deep", made.name)
    return story


def broken(run) -> None:
    """Spark's connector writes lists of required elements as files that nobody can read, whoever wrote the table; our deep check names them."""
    for creator in ("siltstone", "java"):
        made = table(f"sql_required_{creator}", {"id": "BIGINT", "list": "ARRAY<STRING NOT NULL>"}, ["id"])
        maker, oracle = Maker(made, seed=3, pool=60, deletes=0.0), Oracle(made)
        peer = run.siltstone if creator == "siltstone" else run.java
        peer.create(made)
        for _ in range(2):
            rows = maker.batch(60)
            peer.write(made, rows)
            oracle.write(rows)
        run.limits["spark"] = cases.DIFFERS
        run.check(f"of {creator}", made, oracle)
        run.silt.run("check", "--deep", made.name)
        run.spark.compact(made)
        for what, act, symptom in (("Java cannot read it", lambda: run.java.read(made), "Failed to read batch from file"),
                                   ("silt check --deep names the file", lambda: run.silt.run("check", "--deep", made.name), "bucket-0/data-.*insufficient values")):
            try:
                act()
            except Refused as error:
                run.tell(re.search(symptom, str(error)) is not None, f"of {creator}, compacted by Spark: {what} (known)", str(error))
            else:
                run.tell(False, f"of {creator}, compacted by Spark: {what}", "  it can: take the limit out of sql_cases.py and README.md")


def partitioned(name: str, **options: str) -> Table:
    return table(name, COLUMNS, KEYS, ("dt", "region"), bucket=2, options=options)


CASES = [
    Case("engines-all-types", "every type that Spark's connector reads",
         read(table("sql_all_types", {"id": "BIGINT"} | {n: t for n, t in cases.ALL_TYPES.items() if n != "ts9"} | NESTED, ["id"]),
              [("id", "=", 0), ("id", ">=", 1_000), ("i32", ">=", 0), ("d", "<", 0)])),
    Case("engines-nested", "all nested types; Spark's connector makes a row of nulls null, and loses nulls in lists of rows",
         read(table("sql_nested", {"id": "BIGINT", "row": "ROW<x INT>", "rows": "ARRAY<ROW<x INT>>"} | cases.NESTED_TYPES, ["id"]), [("id", ">=", 1_000)]), {"spark": cases.DIFFERS}),
    Case("engines-nanos", "a TIMESTAMP(9) column",
         read(table("sql_nanos", {"id": "BIGINT", "ts9": "TIMESTAMP(9)"}, ["id"]), [("id", ">=", 1_000)]), {"spark": "Unexpected type: INT64"}),
    Case("spark-required-elements", "a list of required elements: Spark's connector breaks it, and our deep check says so", broken),
    Case("engines-partitioned", "two partition columns whose values a path must escape, nested values", read(partitioned("sql_read"), FILTERS)),
    Case("engines-typed-keys", "nine key columns of nine types",
         read(table("sql_typed_keys", cases.TYPED_KEYS | cases.SMALL, list(cases.TYPED_KEYS), bucket=3),
              [("k_s", "=", "é"), ("k_d", "<", 0), ("i32", ">=", 0)])),
    Case("spark-maintains", "Spark compacts, tags, expires and removes orphans while ingest goes on",
         maintained(partitioned("by_spark"), "spark")),
    Case("flink-maintains", "Flink compacts, tags, expires and removes orphans while ingest goes on",
         maintained(partitioned("by_flink"), "flink")),
    Case("spark-writes", "Spark inserts and deletes, we compact", written(partitioned("of_spark", **{"write-only": "true"}), "spark")),
    Case("flink-writes", "Flink inserts and deletes, we compact", written(partitioned("of_flink", **{"write-only": "true"}), "flink")),
    Case("flink-writes-compacting", "Flink inserts, deletes and compacts as it writes, we compact too", written(partitioned("of_flink_too"), "flink")),
]
