"""Runs histories: after every step each engine reads the table in several ways, and must see the rows of the oracle."""

from __future__ import annotations

import collections
import hashlib
import json
import random
import re
import shutil
import time
import traceback
from dataclasses import dataclass, field, replace
from itertools import filterfalse
from pathlib import Path

import canon
import histories
import limits
import peers
from histories import History, Step
from oracle import Oracle, accepting

READERS = ("siltstone", "java-2.0.0", "java-1.4.2", "pypaimon", "paimon-rust")
OPERATORS = ("=", ">=", "<")
# Columns of these types are asked for by conditions.
FILTERED = ("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "DECIMAL", "CHAR", "VARCHAR", "STRING", "DATE", "TIME", "TIMESTAMP", "LTZ")
SHOWN = 3
# A text literal of a timestamp stays inside what 64 bits of nanoseconds hold.
LITERAL_NANOS = 1 << 62
CHECK_EVERY = 5
COUNTERS = ("excused", "covered", "seconds", "crossed", "left_out")
# Parts of a name in Tally.crossed.
CROSS = " | "


class Fault(Exception):
    """A difference: what a step or a reader did that it must not."""

    def __init__(self, step: int, who: str, what: str, detail: str) -> None:
        super().__init__(f"step {step}: {who}: {what}")
        self.step, self.who, self.what, self.detail = step, who, what, detail


@dataclass
class Tally:
    """What was done, over all histories."""

    histories: int = 0
    steps: int = 0
    skipped: int = 0
    comparisons: int = 0
    excused: collections.Counter = field(default_factory=collections.Counter)
    covered: collections.Counter = field(default_factory=collections.Counter)
    seconds: collections.Counter = field(default_factory=collections.Counter)
    # Compactions by who wrote -> who compacted, option, type, and null or value: what met what.
    crossed: collections.Counter = field(default_factory=collections.Counter)
    # Steps under a limit of their engine.
    left_out: collections.Counter = field(default_factory=collections.Counter)
    # By seed, of all that was done and asked.
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        for name in ("histories", "steps", "skipped", "comparisons"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.digests |= other.digests

    def json(self) -> dict:
        return {name: getattr(self, name) for name in ("histories", "steps", "skipped", "comparisons")} | {
            name: dict(getattr(self, name)) for name in (*COUNTERS, "digests")}

    def digest(self) -> str:
        """One for all histories."""
        return hashlib.sha256(repr(sorted(self.digests.items())).encode()).hexdigest()

    @classmethod
    def of(cls, found: dict) -> Tally:
        counters = {name: collections.Counter(found[name]) for name in COUNTERS}
        return cls(**found | counters)


class World:
    """One table on its way through a history."""

    def __init__(self, engines: dict, warehouse: Path, history: History, tally: Tally) -> None:
        self.engines, self.history, self.tally = engines, history, tally
        self.ours = history.creator == "siltstone"
        self.oracle = Oracle(history.table)
        self.folder = warehouse / history.table.name.replace(".", ".db/")
        self.pool = histories.key_pool(history)
        # Names of key columns when the table was made, by their names now.
        self.names = {name: name for name in history.table.primary}
        self.dropped: list[str] = []
        # Table and rows of snapshots and tags, as they were.
        self.snapshots: dict[int, tuple] = {}
        self.tags: dict[str, tuple] = {}
        self.latest = 0
        # Who wrote since the last compaction, and cells of which types, with null and with values.
        self.writers: dict[str, set[tuple[str, str]]] = {}
        self.at = -1
        # Of all steps, and of what was asked of whom and expected: the same for a seed, however a history is run.
        self.digest = hashlib.sha256()

    @property
    def table(self) -> peers.Table:
        return self.oracle.table

    def run(self) -> None:
        """All steps. Raises the first difference."""
        self.do(-1, "create", self.history.creator, lambda: self.engines[self.history.creator].create(self.table))
        for option, value in self.table.options:
            self.tally.covered[f"option {option}={value if option != 'bucket' else 'N'}"] += 1
        for at, step in enumerate(self.history.steps):
            self.at = at
            self.told(step)
            self.step(step)
            self.tally.steps += 1
            self.note_snapshot()
            self.read_all(step)
            if at % CHECK_EVERY == CHECK_EVERY - 1 or at == len(self.history.steps) - 1:
                self.check()
        self.tally.histories += 1
        self.tally.digests[str(self.history.seed)] = self.digest.hexdigest()

    def do(self, at: int, verb: str, actor: str, act):
        """Does what an engine must be able to do."""
        began = time.monotonic()
        try:
            return act()
        except Exception as error:  # an engine may fail in any way
            raise Fault(at, actor, f"cannot {verb}", describe(error)) from error
        finally:
            self.tally.seconds[f"{actor} {verb}"] += time.monotonic() - began

    # --- steps ---

    def step(self, step: Step) -> None:
        rng = random.Random(step.seed)
        limit = limits.of_step(step, self.table)
        if limit:
            self.tally.skipped += 1
            self.tally.left_out[limit] += 1
            return
        getattr(self, "step_" + step.verb)(step, rng)

    def step_fill(self, step: Step, rng: random.Random) -> None:
        self.write(step, histories.Rows(self.oracle, self.pool, self.names, rng).fill())

    def step_write(self, step: Step, rng: random.Random) -> None:
        rows = histories.Rows(self.oracle, self.pool, self.names, rng)
        self.write(step, rows.batch(step.size, inserts_only=step.actor == "pypaimon"))

    def write(self, step: Step, rows: list[tuple[str, list]]) -> None:
        self.do(self.at, "write", step.actor, lambda: self.engines[step.actor].write(self.table, rows))
        held = self.writers.setdefault(step.actor, set())
        for place, (_, t) in enumerate(self.table.columns):
            nulls = sum(cells[place] is None for _, cells in rows)
            for what, count in (("null", nulls), ("value", len(rows) - nulls)):
                self.tally.covered[f"type {t.kind} {what}"] += count
                if count:
                    held.add((t.kind, what))
        for kind, _ in rows:
            self.tally.covered[f"kind {kind} by {step.actor}"] += 1

    def step_nothing(self, step: Step, rng: random.Random) -> None:
        """An empty batch."""
        self.do(self.at, "write nothing", step.actor, lambda: self.engines[step.actor].write(self.table, []))

    def step_compact(self, step: Step, rng: random.Random) -> None:
        engine = self.engines[step.actor]
        act = (lambda: engine.compact(self.table, bare=not self.ours)) if step.actor == "siltstone" else (lambda: engine.compact(self.table))
        self.do(self.at, "compact", step.actor, act)
        self.compacted(step.actor)
        self.writers = {f"{step.actor}'s compaction": set().union(*self.writers.values())}

    def step_pick(self, step: Step, rng: random.Random) -> None:
        report = self.do(self.at, "compact", step.actor, lambda: self.engines[step.actor].compact(self.table, full=False, bare=not self.ours))
        if report["buckets"]:
            self.compacted(f"{step.actor} (picked)")

    def compacted(self, compactor: str) -> None:
        """Counts whose rows of which types, with which options, were compacted by whom."""
        for writer, held in self.writers.items():
            pair = f"{writer} -> {compactor}"
            self.tally.covered[f"pair {pair}"] += 1
            for option, value in self.table.options:
                shown = option if option == "bucket" else f"{option}={value}"
                self.tally.crossed.update(CROSS.join((pair, shown, kind, what)) for kind, what in held)

    def step_alter(self, step: Step, rng: random.Random) -> None:
        changes = histories.draw_changes(self.oracle, rng, self.dropped, self.history.creator == "pypaimon")
        for change in changes:
            as_json = [change[0], change[1], *(part.json() if isinstance(part, canon.Type) else part for part in change[2:])]
            self.do(self.at, "alter", step.actor, lambda: self.engines[step.actor].alter(self.table, [as_json]))
            self.oracle.alter(change)
            name = change[1][0]
            if change[0] == "drop":
                self.dropped.append(name)
            elif change[0] == "add" and name in self.dropped:
                self.dropped.remove(name)
            elif change[0] == "rename" and name in self.names:
                self.names = {change[2] if now == name else now: then for now, then in self.names.items()}
            self.tally.covered[f"alter {change[0]}{' field' if len(change[1]) > 1 else ''}"] += 1

    def step_expire(self, step: Step, rng: random.Random) -> None:
        expired = self.do(self.at, "expire", step.actor, lambda: self.engines[step.actor].expire(self.table, step.size))
        if expired:
            self.tally.covered[f"expired by {step.actor}"] += 1

    def step_tag(self, step: Step, rng: random.Random) -> None:
        name = f"t{step.seed:08x}"
        self.do(self.at, "tag", step.actor, lambda: self.engines[step.actor].tag(self.table, name))
        if self.latest in self.snapshots:
            self.tags[name] = self.snapshots[self.latest]

    def step_untag(self, step: Step, rng: random.Random) -> None:
        if self.tags:
            name = rng.choice(sorted(self.tags))
            del self.tags[name]
            self.do(self.at, "untag", step.actor, lambda: self.engines[step.actor].untag(self.table, name))

    # --- reads ---

    def note_snapshot(self) -> None:
        """Remembers what the newest snapshot holds, and forgets those that are gone."""
        found = {int(path.name.removeprefix("snapshot-")) for path in self.folder.glob("snapshot/snapshot-*")}
        newest = max(found, default=0)
        self.snapshots = {n: held for n, held in self.snapshots.items() if n in found}
        if newest > self.latest:
            schema = json.loads((self.folder / f"snapshot/snapshot-{newest}").read_text())["schemaId"]
            self.snapshots[newest] = (schema, self.table, self.oracle.lines())
            self.latest = newest

    def read_all(self, step: Step) -> None:
        """Every reader reads everything, and then by a condition, some columns, or both."""
        rng, expected = random.Random(step.seed + 1), self.oracle.lines()
        self.told(len(expected), canon.digest(expected))
        for reader in READERS:
            self.compare(reader, peers.View(), expected)
            # Drawn for engines that are left out, too, so that the others are asked the same.
            if self.latest:
                where = self.draw_where(rng) if rng.random() < 0.7 else None
                names = [name for name, _ in self.table.columns]
                some = tuple(rng.sample(names, rng.randrange(1, len(names) + 1))) if where is None or rng.random() < 0.3 else None
                self.compare(reader, peers.View(where=where, columns=some))
        older = [n for n in self.snapshots if n != self.latest]
        if older and rng.random() < 0.4:
            n = rng.choice(older)
            self.travel(rng.choice(READERS), peers.View(snapshot=n), *self.snapshots[n])
        if self.tags and rng.random() < 0.4:
            name = rng.choice(sorted(self.tags))
            self.travel(rng.choice(READERS), peers.View(tag=name), *self.tags[name])
        self.count(expected)

    def travel(self, reader: str, view: peers.View, schema: int, table: peers.Table, expected: list[str]) -> None:
        """An older state, with the columns that it had then; pypaimon and the `paimon` crate have today's."""
        if table.columns != self.table.columns and reader not in ("siltstone", *histories.JAVAS):
            return
        now, self.oracle.table = self.oracle.table, table
        try:
            self.compare(reader, view, expected)
        finally:
            self.oracle.table = now

    def count(self, expected: list[str]) -> None:
        """Rows by metadata, where Java can tell."""
        rows = self.do(self.at, "count", "java-2.0.0", lambda: self.engines["java-2.0.0"].count(self.table)) if self.latest else None
        if rows is not None:
            self.tally.comparisons += 1
            self.tally.covered["read count from metadata"] += 1
            if rows != len(expected):
                raise Fault(self.at, "java-2.0.0", f"counts {rows} rows by metadata", f"  expected {len(expected)}")

    def draw_where(self, rng: random.Random) -> tuple | None:
        alive, columns = self.oracle.alive(), [name for name, t in self.table.columns if t.kind in FILTERED]
        if not columns or not alive:
            return None
        column = rng.choice(columns)
        cell, t = rng.choice(alive).cells[self.table.index(column)], dict(self.table.columns)[column]
        if cell is None or t.kind in ("TIMESTAMP", "LTZ") and abs(cell) > LITERAL_NANOS:
            return None
        return (column, rng.choice(OPERATORS), cell)

    def compare(self, reader: str, view: peers.View, expected: list[str] | None = None) -> None:
        """One read. What is to be expected is the oracle's, where it is not given."""
        if reader not in self.engines:
            return
        self.told(reader, view)
        self.tally.comparisons += 1
        for kind in [name for name, value in vars(view).items() if value is not None] or ["whole"]:
            self.tally.covered[f"read {kind} by {reader}"] += 1
        read = self.read_columns(view)
        wanted, rest = (expected, []) if expected is not None else self.oracle.parted(view.where, read)
        began, symptom = time.monotonic(), None
        try:
            found = self.engines[reader].lines(self.table, replace(view, columns=read))
            if sorted(filterfalse(set(rest).__contains__, found) if rest else found) != wanted:
                # More slowly, and by what the rows say themselves.
                wanted, got = self.expected(view, expected), self.filtered(found, view, read)
                symptom = "the rows differ\n" + difference(got, wanted, self.table, view) if got != wanted else None
        except Exception as error:  # an engine may fail in any way
            symptom = describe(error)
        finally:
            self.tally.seconds[f"{reader} read"] += time.monotonic() - began
        if symptom is None:
            return
        limit = limits.of_read(reader, view, self.table, symptom)
        if limit is None:
            raise Fault(self.at, reader, f"reads {show(view)}", f"{symptom}\n{self.others(reader, view, self.expected(view, expected))}")
        self.tally.excused[limit] += 1

    def told(self, *what) -> None:
        """Goes into the digest of what was done and asked."""
        self.digest.update(repr((self.at, *what)).encode())

    def expected(self, view: peers.View, given: list[str] | None) -> list[str]:
        return self.oracle.read(view.where, view.columns) if given is None else given

    def read_columns(self, view: peers.View) -> tuple[str, ...] | None:
        """The columns to read: the one of the condition, too, as what an engine leaves to its caller to filter is filtered here."""
        if view.where and view.columns is not None and view.where[0] not in view.columns:
            return (*view.columns, view.where[0])
        return view.columns

    def filtered(self, found: list[str], view: peers.View, read: tuple[str, ...] | None) -> list[str]:
        """Rows as they were read, those of the view's condition and with its columns only, sorted: what counts is that no row is missing."""
        if not view.where:
            return sorted(found)
        table = self.table if read is None else self.table.project(read)
        accepted, width = accepting(table, view.where), len(table.columns if view.columns is None else view.columns)
        types = table.types[:width]
        return sorted(canon.line(row[:width], types) for row in map(json.loads, found) if accepted(row))

    def lines(self, reader: str, view: peers.View) -> list[str]:
        """What an engine reads, so."""
        read = self.read_columns(view)
        return self.filtered(self.engines[reader].lines(self.table, replace(view, columns=read)), view, read)

    def others(self, reader: str, view: peers.View, expected: list[str]) -> str:
        """What the other engines say to what one of them reads otherwise."""
        said = []
        for other in READERS:
            if other != reader and other in self.engines:
                try:
                    said.append(f"{other} {'as expected' if self.lines(other, view) == expected else 'otherwise, too'}")
                except Exception as error:
                    said.append(f"{other} fails ({str(error).splitlines()[0][:100]})")
        return "  " + ", ".join(said)

    def check(self) -> None:
        findings = self.do(self.at, "check", "siltstone", lambda: self.engines["siltstone"].check(self.table, bare=not self.ours))
        # Notes are no faults; what others put above our pointer is adopted by our next commit.
        findings = [x for x in findings if not x.startswith("note: ") and "the next commit adopts it" not in x]
        if findings:
            raise Fault(self.at, "siltstone", "check finds faults", "\n".join(findings[:10]))


def show(view: peers.View) -> str:
    said = [f"{name} {value}" for name, value in vars(view).items() if value is not None]
    return ", ".join(said) or "the whole table"


def difference(got: list[str], wanted: list[str], table: peers.Table, view: peers.View) -> str:
    """The first rows that one side has more often than the other, with the columns that differ where the key is the same."""
    more, less = collections.Counter(got), collections.Counter(wanted)
    extra, missing = sorted((more - less).elements()), sorted((less - more).elements())
    out = [f"  {len(got)} rows, {len(extra)} too many, {len(missing)} missing"]
    names = view.columns or [name for name, _ in table.columns]
    if all(key in names for key in table.primary):
        table = table.project(tuple(names))
        by_key = {table.key(json.loads(row)): json.loads(row) for row in missing}
        for row in extra[:SHOWN]:
            cells = json.loads(row)
            other = by_key.pop(table.key(cells), None)
            if other is None:
                out.append(f"  too many: {row[:1500]}")
                continue
            differ = [f"{name}: got {a!r}, expected {b!r}" for name, a, b in zip(names, cells, other) if a != b]
            out.append(f"  key {table.key(cells)}: {'; '.join(differ)[:1500]}")
    else:
        out += [f"  too many: {row[:800]}" for row in extra[:SHOWN]]
    return "\n".join(out + [f"  missing: {row[:800]}" for row in missing[:SHOWN]])


def describe(error: Exception) -> str:
    text = str(error) if isinstance(error, peers.Refused) else "".join(traceback.format_exception(error)[-4:])
    return "\n".join(f"  {line}" for line in text.splitlines()[:30])


# --- what was covered ------------------------------------------------------------------------------------------------------

def coverage(tally: Tally) -> list[dict]:
    """One row for each writer -> compactor: its compactions, and what met it, of all that met any."""
    met = [name.split(CROSS) for name in tally.crossed]
    types = {(kind, what) for _, _, kind, what in met}
    options = {option for _, option, _, _ in met}
    rows = []
    for pair in sorted({pair for pair, *_ in met}):
        of_pair = [rest for name, *rest in met if name == pair]
        seen = {(kind, what) for _, kind, what in of_pair}
        rows.append({"pair": pair, "compactions": tally.covered[f"pair {pair}"], "types": len({k for k, w in seen if w == "value"}),
                     "types_with_null": len({k for k, w in seen if w == "null"}), "of_types": len({k for k, _ in types}),
                     "options": len({option for option, _, _ in of_pair}), "of_options": len(options),
                     "combinations": len(of_pair), "of_combinations": len(types) * len(options)})
    return rows


# --- making a failing history small ----------------------------------------------------------------------------------------

def run(engines: dict, warehouse: Path, history: History, tally: Tally) -> Fault | None:
    """The first difference of a history; the table goes afterwards."""
    world = World(engines, warehouse, history, tally)
    try:
        world.run()
        return None
    except Fault as fault:
        return fault
    finally:
        shutil.rmtree(world.folder, ignore_errors=True)


def shrink(engines: dict, warehouse: Path, history: History, fault: Fault, seconds: float) -> tuple[History, Fault]:
    """The smallest history found in this time in which the same engine shows the same fault."""
    until, tries = time.monotonic() + seconds, 0
    history = replace(history, steps=history.steps[:fault.step + 1])

    def attempt(candidate: History) -> bool:
        nonlocal history, fault, tries
        if time.monotonic() > until:
            return False
        tries += 1
        # Another name each time: engines keep things in mind by name.
        named = replace(candidate, table=replace(candidate.table, name=f"{candidate.table.name.split('_')[0]}_{tries}"))
        found = run(engines, warehouse, named, Tally())
        if found is None or (found.who, found.what.split()[0]) != (fault.who, fault.what.split()[0]):
            return False
        history, fault = replace(candidate, steps=candidate.steps[:found.step + 1]), found
        return True

    at = len(history.steps) - 2
    while at >= 0:
        if at < len(history.steps) - 1:
            attempt(replace(history, steps=history.steps[:at] + history.steps[at + 1:]))
        at -= 1
    for at, step in enumerate(history.steps):
        while step.size > 1 and step.verb == "write" and at < len(history.steps):
            smaller = replace(step, size=step.size // 2)
            if not attempt(replace(history, steps=(*history.steps[:at], smaller, *history.steps[at + 1:]))):
                break
            step = smaller
    for name, _ in history.table.options:
        if name not in ("bucket", "sequence.field"):
            kept = tuple(o for o in history.table.options if o[0] != name)
            attempt(replace(history, table=replace(history.table, options=kept)))
    return history, fault


def told(history: History, fault: Fault) -> str:
    """A failing history for people."""
    table = history.table
    lines = [f"seed {history.seed}: {fault}", fault.detail, f"  made by {history.creator}: {json.dumps(table.json(), ensure_ascii=False)}"]
    return "\n".join(lines + [f"  {n}: {step}" for n, step in enumerate(history.steps)])


# --- known limits ----------------------------------------------------------------------------------------------------------

def prove(engines: dict, limit: limits.Limit, name: str) -> str | None:
    """Shows that a limit is real: what was seen instead, if it is not."""
    proof = limit.proof
    columns = (("k", canon.parse("INT NOT NULL")), *((c, canon.parse(t)) for c, t in proof.columns.items()))
    table = peers.Table(name, columns, ("k",), (), tuple(({"bucket": "1"} | proof.options).items()))
    oracle = Oracle(table)
    engines["siltstone" if proof.writer == "siltstone" else "java-2.0.0"].create(table)
    for batch in proof.batches:
        try:
            engines[proof.writer].write(table, [(kind, cells) for kind, cells in batch])
        except Exception as error:  # an engine may fail in any way
            symptom = describe(error)
            return None if limit.verb == "write" and re.search(limit.symptom, symptom) else symptom
        for kind, cells in batch:
            oracle.write(kind, cells)
    reader = limit.engine if limit.verb == "read" else "java-2.0.0"
    if limit.verb == "compact":
        engines[limit.engine].compact(table)
    expected = oracle.read(proof.view.where, proof.view.columns)
    try:
        got = sorted(engines[reader].lines(table, proof.view))
        symptom = "the rows differ" if got != expected else "it reads what is there"
    except Exception as error:
        symptom = describe(error)
    return None if re.search(limit.symptom, symptom) else symptom
