"""Random tables and what happens to them, all from a seed. A step draws what it needs from its own seed and the table as it finds it, so that a
history from which steps were taken out is still a history: that is how a failing one is made small."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import canon
from canon import Type
from oracle import Oracle
from peers import Table

# Who can do what. Tables of Siltstone have a pointer; it compacts those of others as bare tables.
CREATORS = ("siltstone", "java-2.0.0", "java-1.4.2", "pypaimon")
WRITERS = ("java-2.0.0", "java-1.4.2", "pypaimon", "paimon-rust")
COMPACTORS = ("siltstone", "java-2.0.0", "java-1.4.2")
JAVAS = ("java-2.0.0", "java-1.4.2")

KEYS = 1_300
STEPS = 20
PARTITION_VALUES = {
    "STRING": ["eu", "a/b=c d%é", "\u4e2d\u6587", "x:y?*{[", "'q'"], "INT": [-1, 0, 2_147_483_647], "BIGINT": [-9_223_372_036_854_775_808, 7],
    "DATE": [19_700, -1, 0], "BOOLEAN": [True, False],
}
# Enough values for a key by themselves.
WIDE_KEYS = ("INT", "BIGINT", "STRING", "DECIMAL(9, 2)", "DECIMAL(18, 0)", "DECIMAL(19, 4)", "DECIMAL(38, 10)", "TIMESTAMP(3)", "TIMESTAMP(6)",
             "TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP(6) WITH LOCAL TIME ZONE", "DATE", "VARCHAR(20)", "BYTES", "VARBINARY(16)")
NARROW_KEYS = ("BOOLEAN", "TINYINT", "SMALLINT", "CHAR(7)", "BINARY(4)", "TIME(3)", "DECIMAL(4, 1)", "TIMESTAMP(0)")
SCALARS = ("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(9, 3)", "DECIMAL(18, 18)", "DECIMAL(19, 0)",
           "DECIMAL(38, 10)", "CHAR(7)", "VARCHAR(20)", "STRING", "BINARY(4)", "VARBINARY(16)", "BYTES", "DATE", "TIME(0)", "TIME(3)",
           "TIMESTAMP(0)", "TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMP(9)", "TIMESTAMP(3) WITH LOCAL TIME ZONE",
           "TIMESTAMP(6) WITH LOCAL TIME ZONE")
# Java 1.4.2 cannot read it (limits.py), so it is drawn less often.
NANOS = canon.parse("TIMESTAMP(9)")
# What pypaimon can say of a type when it makes a table: what Arrow can say.
PLAIN = ("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "DECIMAL(9, 3)", "DECIMAL(18, 18)", "DECIMAL(19, 0)",
         "DECIMAL(38, 10)", "STRING", "BYTES", "DATE", "TIMESTAMP(3)", "TIMESTAMP(6)")
WIDER = {"TINYINT": ("SMALLINT", "INT", "BIGINT"), "SMALLINT": ("INT", "BIGINT"), "INT": ("BIGINT",), "FLOAT": ("DOUBLE",)}
# Options that say how tables are written, each with values to choose from; see paimon-format.md.
OPTIONS = {
    "file.compression": ("zstd", "snappy", "gzip", "lz4", "none"), "file.compression.per.level": ("0:lz4,5:snappy", "0:none"),
    "file.compression.zstd-level": ("1", "9"), "target-file-size": ("64 kb", "1 mb"),
    "target-file-row-num": ("40", "700"),
    "metadata.stats-mode": ("none", "counts", "truncate(4)", "truncate(16)", "full"), "metadata.stats-dense-store": ("false",),
    "metadata.stats-keep-first-n-columns": ("2",), "manifest.target-file-size": ("4 kb",), "manifest.merge-min-count": ("3",),
    "manifest.compression": ("snappy", "zstd", "null"), "data-file.prefix": ("run-",), "data-file.path-directory": ("data",),
    "file.suffix.include.compression": ("true",), "partition.legacy-name": ("false",), "partition.default-name": ("nothing",),
    "num-levels": ("3", "4"), "num-sorted-run.compaction-trigger": ("2", "3"), "data-file.thin-mode": ("true",),
    "changelog-producer": ("input",), "changelog-file.prefix": ("log-",), "parquet.block.size": ("20000",), "parquet.page.size": ("2000",),
    "manifest.full-compaction-threshold-size": ("1 kb",), "compaction.size-ratio": ("50",),
    "compaction.max-size-amplification-percent": ("50",), "write-only": ("true",), "ignore-delete": ("true",),
    "ignore-update-before": ("true",),
}


@dataclass(frozen=True)
class Step:
    """One thing that somebody does to the table."""

    verb: str
    actor: str
    seed: int
    size: int = 0

    def __str__(self) -> str:
        return f"{self.actor} {self.verb}" + (f" {self.size}" if self.size else "") + f" (seed {self.seed})"


@dataclass(frozen=True)
class History:
    """A table, who makes it, and what happens to it."""

    seed: int
    creator: str
    table: Table
    steps: tuple[Step, ...]


def draw(seed: int, without: str | None = None) -> History:
    """The history of a seed; where an engine is left out, Java takes its steps."""
    rng = random.Random(seed)
    creator = rng.choices(CREATORS, (5, 2, 1, 1))[0]
    table = draw_table(rng, creator, f"random.t{seed}")
    writers = ("siltstone", *WRITERS) if creator == "siltstone" else WRITERS
    steps = [Step("fill", rng.choice([w for w in writers if w != "pypaimon"] if creator != "pypaimon" else WRITERS), rng.getrandbits(32))]
    while len(steps) < STEPS:
        steps.append(draw_step(rng, creator, writers))
    # At least one compaction by us, with something written on top of it.
    steps[STEPS // 2] = Step("compact", "siltstone", rng.getrandbits(32))
    steps = [replace(step, actor=JAVAS[0]) if step.actor == without else step for step in steps]
    return History(seed, creator, table, tuple(steps))


def draw_step(rng: random.Random, creator: str, writers: tuple[str, ...]) -> Step:
    verb = rng.choices(("write", "compact", "pick", "alter", "expire", "tag", "untag", "nothing"), (58, 12, 8, 7, 5, 4, 2, 2))[0]
    seed, pick = rng.getrandbits(32), rng.choice
    if verb == "write":
        # Many small batches, few large ones.
        weights = [3 if writer == "siltstone" else 1 for writer in writers]
        return Step(verb, rng.choices(writers, weights)[0], seed, int(5_000 ** rng.random()) if rng.random() < 0.85 else rng.randrange(1, 5_000))
    if verb == "nothing":
        return Step(verb, pick(JAVAS), seed)
    if verb == "compact":
        return Step(verb, pick(COMPACTORS), seed)
    if verb == "pick":
        return Step(verb, "siltstone", seed)
    if verb == "expire":
        return Step(verb, pick(("siltstone", *JAVAS)) if creator == "siltstone" else pick(JAVAS), seed, pick((1, 2, 3, 5)))
    return Step(verb, pick(JAVAS), seed)


# --- tables ------------------------------------------------------------------------------------------------------------

def draw_table(rng: random.Random, creator: str, name: str) -> Table:
    plain = creator == "pypaimon"
    columns: dict[str, Type] = {}
    partitions = rng.choices((0, 1, 2), (5, 4, 2))[0]
    for n in range(partitions):
        columns[f"p{n}"] = required(rng.choice(list(PARTITION_VALUES)))
    wide = rng.choice([t for t in WIDE_KEYS if not plain or t in PLAIN])
    columns["k0"] = required(wide)
    for n in range(1, rng.choices((1, 2, 3), (6, 3, 2))[0]):
        columns[f"k{n}"] = required(rng.choice([t for t in WIDE_KEYS + NARROW_KEYS if not plain or t in PLAIN]))
    options = {"bucket": str(rng.randrange(1, 8) if partitions == 0 else rng.randrange(1, 4))}
    if rng.random() < 0.3:
        names = ["s0", "s1"][:rng.choice((1, 1, 2))]
        columns |= {n: required(rng.choice(("BIGINT", "INT") if plain else ("BIGINT", "INT", "TIMESTAMP(3)"))) for n in names}
        options["sequence.field"] = ",".join(names)
        if rng.random() < 0.2:
            options["sequence.field.sort-order"] = "descending"
    if rng.random() < 0.08:
        columns["row_kind"] = required("STRING")
        options["rowkind.field"] = "row_kind"
    wanted = 60 if rng.random() < 0.04 else rng.randrange(2, 9)
    for n in range(wanted):
        columns[f"v{n}"] = draw_type(rng, plain, 0.12 if wanted < 20 else 0.0)
    items = list(columns.items())
    primary = [n for n in columns if n[0] in "pk"]
    if rng.random() < 0.5:
        rng.shuffle(items)
        rng.shuffle(primary)
    if rng.random() < 0.2:
        options["bucket-key"] = rng.choice([n for n in primary if n[0] == "k"])
    for option, values in OPTIONS.items():
        if rng.random() < 0.08:
            options[option] = rng.choice(values)
    if "metadata.stats-dense-store" in options and rng.random() < 0.7:
        # It shows only where columns have no statistics.
        options |= rng.choice(({"metadata.stats-mode": "none"}, {"metadata.stats-keep-first-n-columns": "2"}))
    return Table(name, tuple(items), tuple(primary), tuple(f"p{n}" for n in range(partitions)), tuple(options.items()))


def required(text: str) -> Type:
    return canon.parse(text + " NOT NULL")


def draw_type(rng: random.Random, plain: bool, nested: float) -> Type:
    """A type for values: plain or, sometimes, nested up to three deep."""
    if rng.random() >= nested:
        t = canon.parse(rng.choice(PLAIN if plain else SCALARS))
        if t == NANOS and rng.random() < 0.8:
            t = canon.parse("TIMESTAMP(6)")
    else:
        inner = lambda: draw_type(rng, plain, nested)
        kind = rng.choice(("ARRAY", "MAP", "ROW"))
        if kind == "ARRAY":
            t = Type(kind, True, (), (("item", inner()),))
        elif kind == "MAP":
            t = Type(kind, True, (), (("key", required(rng.choice(("STRING", "INT", "BIGINT")))), ("value", inner())))
        else:
            t = Type(kind, True, (), tuple((f"f{n}", inner()) for n in range(rng.randrange(1, 4))))
    return t


# --- rows --------------------------------------------------------------------------------------------------------------

def key_pool(history: History) -> list[dict]:
    """Keys of a table, as cells by column name when it is made."""
    rng, table, pool = random.Random(history.seed ^ 0x6B6579), history.table, {}
    few = {name: [canon.sample(t, rng) for _ in range(6)] for name, t in table.columns if name in table.primary}
    types = dict(table.columns)
    tries = 0
    while len(pool) < KEYS:
        tries += 1
        key = {}
        for name in table.primary:
            if name in table.partition:
                key[name] = rng.choice(PARTITION_VALUES[types[name].kind])
            elif name == "k0":
                key[name] = key_cell(types[name], rng, tries)
            else:
                key[name] = rng.choice(few[name])
        pool[str(list(key.values()))] = key
    return list(pool.values())


def key_cell(t: Type, rng: random.Random, n: int):
    """Edges of the type and values close to each other."""
    if rng.random() < 0.1:
        return canon.sample(t, rng)
    if t.kind in ("INT", "BIGINT", "DATE"):
        return n - 700
    if t.kind in ("STRING", "VARCHAR"):
        return f"{rng.choice(('', 'a', 'é', 'same first sixteen: '[:t.size[0] - 5 if t.size else 20]))}{n}"
    if t.kind in ("BYTES", "VARBINARY"):
        return (rng.randbytes(rng.randrange(3)) + n.to_bytes(3, "big")).hex()
    return canon.sample(t, rng)


class Rows:
    """Makes the rows of one step up and tells the oracle of each."""

    def __init__(self, oracle: Oracle, pool: list[dict], names: dict[str, str], rng: random.Random) -> None:
        """`names` are the names of key columns as they were when the table was made, by their names now."""
        self.oracle, self.table, self.rng = oracle, oracle.table, rng
        self.keys = [[key[names[c]] for c in self.table.primary] for key in pool]
        self.key_places = [self.table.index(c) for c in self.table.primary]
        self.sequence, self.kind = oracle.sequence, oracle.kind_place
        self.falling = dict(self.table.options).get("sequence.field.sort-order") == "descending"

    def fill(self) -> list[tuple[str, list]]:
        """Every key once."""
        return [self.put("+I", key) for key in self.rng.sample(self.keys, len(self.keys))]

    def batch(self, count: int, inserts_only: bool) -> list[tuple[str, list]]:
        rows: list[tuple[str, list]] = []
        deletes = 0.0 if inserts_only else self.rng.choice((0.0, 0.05, 0.2, 0.5))
        # Keys of a batch lie anywhere, or close together, so that files overlap more or less.
        span = self.rng.choice((len(self.keys), max(count, 20)))
        start = self.rng.randrange(max(len(self.keys) - span, 1))
        while len(rows) < count:
            key = self.keys[self.rng.randrange(start, min(start + span, len(self.keys)))]
            if self.rng.random() < deletes:
                rows.append(self.put("-D", key))
            elif not inserts_only and self.rng.random() < 0.15:
                before = self.oracle.newest.get(self.key_text(key))
                if before is not None and before.alive and not self.sequence:
                    rows.append(("-U", self.named("-U", list(before.cells))))
                rows.append(self.put("+U", key))
            else:
                rows.append(self.put("+I", key))
        return rows

    def key_text(self, key: list) -> str:
        cells = [None] * len(self.table.columns)
        for place, cell in zip(self.key_places, key):
            cells[place] = cell
        return self.table.key(cells)

    def put(self, kind: str, key: list) -> tuple[str, list]:
        cells = [None if name in self.table.primary else canon.sample(t, self.rng) for name, t in self.table.columns]
        for place, cell in zip(self.key_places, key):
            cells[place] = cell
        if self.sequence:
            self.number(cells)
        self.oracle.write(kind, self.named(kind, cells))
        return kind, cells

    def named(self, kind: str, cells: list) -> list:
        """The cells with their kind in the column that tells it, where there is one."""
        if self.kind is not None:
            cells[self.kind] = kind
        return cells

    def number(self, cells: list) -> None:
        """Values of `sequence.field`: mostly rising, a fifth of them too old to win. Where the newest version is a delete, a compaction may have
        dropped it, and an older row would live or not: such rows are not made."""
        newest = self.oracle.newest.get(self.table.key(cells))
        now = self.oracle.written + 10
        late = newest is not None and newest.alive and self.rng.random() < 0.2
        for name in self.sequence:
            value = now - self.rng.randrange(10, now + 1) if late else now
            if self.falling:
                value = -value
            t = dict(self.table.columns)[name]
            cells[self.table.index(name)] = value * 1_000_000 if t.kind == "TIMESTAMP" else value


def draw_changes(oracle: Oracle, rng: random.Random, dropped: list[str], plain: bool) -> list[list]:
    """Changes of the schema; `dropped` are names that columns had once."""
    table = oracle.table
    named = {name for value in dict(table.options).values() for name in value.split(",")}
    values = [name for name, _ in table.columns if name not in table.primary and name not in named]
    types, changes = dict(table.columns), []
    kind = rng.choice(("add", "again", "drop", "rename", "rename key", "widen", "first", "field"))
    fresh = f"x{rng.getrandbits(24):06x}"
    if kind == "add" or kind == "again" and not dropped:
        changes.append(["add", [fresh], draw_type(rng, plain, 0.15)])
    elif kind == "again":
        changes.append(["add", [rng.choice(dropped)], draw_type(rng, plain, 0.15)])
    elif kind == "drop" and len(values) > 1:
        changes.append(["drop", [rng.choice(values)]])
    elif kind == "rename" and values:
        changes.append(["rename", [rng.choice(values)], fresh])
    elif kind == "rename key":
        keys = [name for name in table.primary if name not in table.partition and name not in named]
        if keys:
            changes.append(["rename", [rng.choice(keys)], f"k{fresh}"])
    elif kind == "first" and (values := [name for name in values if name != table.columns[0][0]]):
        changes.append(["first", [rng.choice(values)]])
    elif kind == "widen":
        able = [name for name in values if types[name].kind in WIDER or types[name].kind == "DECIMAL" and types[name].size[0] < 38]
        if able:
            name = rng.choice(able)
            t = types[name]
            size = (rng.randrange(t.size[0] + 1, 39), t.size[1]) if t.kind == "DECIMAL" else ()
            changes.append(["type", [name], Type(t.kind if size else rng.choice(WIDER[t.kind]), t.nullable, size)])
    elif kind == "field":
        rows = [name for name in values if types[name].kind == "ROW"]
        if rows:
            changes.append(["add", [rng.choice(rows), fresh], draw_type(rng, plain, 0.0)])
    return changes
