"""Runs histories: after every step each engine reads the table in several ways, and must see the rows of the oracle."""

from __future__ import annotations

import collections
import json
import random
import shutil
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

import canon
import histories
import limits
import peers
from histories import History, Step
from oracle import Oracle

READERS = ("siltstone", "java-2.0.0", "java-1.4.2", "pypaimon", "paimon-rust")
OPERATORS = ("=", ">=", "<")
# Columns of these types are asked for by conditions.
FILTERED = ("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "DECIMAL", "CHAR", "VARCHAR", "STRING", "DATE", "TIME", "TIMESTAMP", "LTZ")
SHOWN = 3
# A text literal of a timestamp stays inside what 64 bits of nanoseconds hold.
LITERAL_NANOS = 1 << 62
CHECK_EVERY = 5


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

    def add(self, other: Tally) -> None:
        for name in ("histories", "steps", "skipped", "comparisons"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("excused", "covered", "seconds"):
            getattr(self, name).update(getattr(other, name))

    def json(self) -> dict:
        return {name: getattr(self, name) for name in ("histories", "steps", "skipped", "comparisons")} | {
            name: dict(getattr(self, name)) for name in ("excused", "covered", "seconds")}

    @classmethod
    def of(cls, found: dict) -> Tally:
        return cls(**{name: collections.Counter(value) if isinstance(value, dict) else value for name, value in found.items()})


class World:
    """One table on its way through a history."""

    def __init__(self, engines: dict, warehouse: Path, history: History, tally: Tally) -> None:
        self.engines, self.history, self.tally = engines, history, tally
        self.ours = history.creator == "siltstone"
        self.oracle = Oracle(history.table)
        self.folder = warehouse / history.table.name.replace(".", ".db/")
        self.pool = histories.key_pool(history)
        self.names = {name: name for name in history.table.primary}
        self.dropped: list[str] = []
        # Table and rows of snapshots and tags, as they were.
        self.snapshots: dict[int, tuple] = {}
        self.tags: dict[str, tuple] = {}
        self.latest = 0
        # Who wrote since the last compaction of whom.
        self.writers: set[str] = set()
        self.foreign = False
        self.at = -1

    @property
    def table(self) -> peers.Table:
        return self.oracle.table

    def run(self, stop_at: int | None = None) -> None:
        """All steps. Raises the first difference."""
        self.do(-1, "create", self.history.creator, lambda: self.engines[self.history.creator].create(self.table))
        for option, value in self.table.options:
            self.tally.covered[f"option {option}={value if option != 'bucket' else 'N'}"] += 1
        for at, step in enumerate(self.history.steps):
            self.at = at
            self.step(step)
            self.tally.steps += 1
            self.note_snapshot()
            self.read_all(step, whole=True)
            if at % CHECK_EVERY == CHECK_EVERY - 1 or at == len(self.history.steps) - 1:
                self.check()
        self.tally.histories += 1

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
            return
        getattr(self, "step_" + step.verb)(step, rng)

    def step_fill(self, step: Step, rng: random.Random) -> None:
        self.write(step, histories.Rows(self.oracle, self.pool, self.names_now(), rng).fill())

    def step_write(self, step: Step, rng: random.Random) -> None:
        rows = histories.Rows(self.oracle, self.pool, self.names_now(), rng)
        self.write(step, rows.batch(step.size, inserts_only=step.actor == "pypaimon"))

    def write(self, step: Step, rows: list[tuple[str, list]]) -> None:
        self.do(self.at, "write", step.actor, lambda: self.engines[step.actor].write(self.table, rows))
        self.writers.add(step.actor)
        for place, (_, t) in enumerate(self.table.columns):
            self.tally.covered[f"type {t.kind} null"] += sum(cells[place] is None for _, cells in rows)
            self.tally.covered[f"type {t.kind} value"] += sum(cells[place] is not None for _, cells in rows)
        for kind, _ in rows:
            self.tally.covered[f"kind {kind} by {step.actor}"] += 1

    def step_nothing(self, step: Step, rng: random.Random) -> None:
        """An empty batch."""
        self.do(self.at, "write nothing", step.actor, lambda: self.engines[step.actor].write(self.table, []))

    def step_compact(self, step: Step, rng: random.Random) -> None:
        engine = self.engines[step.actor]
        act = (lambda: engine.compact(self.table, bare=not self.ours)) if step.actor == "siltstone" else (lambda: engine.compact(self.table))
        self.do(self.at, "compact", step.actor, act)
        for writer in self.writers:
            self.tally.covered[f"pair {writer} -> {step.actor}"] += 1
        self.writers = {f"{step.actor}'s compaction"}

    def step_pick(self, step: Step, rng: random.Random) -> None:
        report = self.do(self.at, "compact", step.actor, lambda: self.engines[step.actor].compact(self.table, full=False, bare=not self.ours))
        if report["buckets"]:
            for writer in self.writers:
                self.tally.covered[f"pair {writer} -> {step.actor} (picked)"] += 1

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

    def names_now(self) -> dict[str, str]:
        """Names of key columns when the table was made, by their names now."""
        return self.names

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

    def read_all(self, step: Step, whole: bool) -> None:
        rng, expected = random.Random(step.seed + 1), self.oracle.lines()
        views = [(peers.View(), expected, self.table)]
        if self.latest:
            columns = [n for n, t in self.table.columns if t.kind in FILTERED]
            where = self.draw_where(rng, columns)
            if where:
                views.append((peers.View(where=where), self.oracle.where(where), self.table))
            names = tuple(rng.sample([n for n, _ in self.table.columns], rng.randrange(1, len(self.table.columns) + 1)))
            views.append((peers.View(columns=names), self.oracle.project(names), self.table.project(names)))
        for reader in READERS:
            for view, wanted, table in views:
                self.compare(reader, view, wanted, table)
        older = [n for n in self.snapshots if n != self.latest]
        if older and rng.random() < 0.4:
            n = rng.choice(older)
            self.travel(rng.choice(READERS), peers.View(snapshot=n), *self.snapshots[n])
        if self.tags and rng.random() < 0.4:
            name = rng.choice(sorted(self.tags))
            self.travel(rng.choice([r for r in READERS if r != "siltstone"]), peers.View(tag=name), *self.tags[name])
        self.count(expected)

    def travel(self, reader: str, view: peers.View, schema: int, table: peers.Table, expected: list[str]) -> None:
        """An older state with the columns that it had then."""
        if table.columns == self.table.columns:
            self.compare(reader, view, expected, self.table)

    def count(self, expected: list[str]) -> None:
        """Rows by metadata, where Java can tell."""
        rows = self.do(self.at, "count", "java-2.0.0", lambda: self.engines["java-2.0.0"].count(self.table)) if self.latest else None
        if rows is not None:
            self.tally.comparisons += 1
            self.tally.covered["read count from metadata"] += 1
            if rows != len(expected):
                raise Fault(self.at, "java-2.0.0", f"counts {rows} rows by metadata", f"  expected {len(expected)}")

    def draw_where(self, rng: random.Random, columns: list[str]) -> tuple | None:
        alive = self.oracle.alive()
        if not columns or not alive:
            return None
        column = rng.choice(columns)
        cell, t = rng.choice(alive).cells[self.table.index(column)], dict(self.table.columns)[column]
        if cell is None or t.kind in ("TIMESTAMP", "LTZ") and abs(cell) > LITERAL_NANOS:
            return None
        return (column, rng.choice(OPERATORS), cell)

    def compare(self, reader: str, view: peers.View, expected: list[str], table: peers.Table) -> None:
        began = time.monotonic()
        kind = "where" if view.where else "columns" if view.columns else "snapshot" if view.snapshot else "tag" if view.tag else "whole"
        self.tally.comparisons += 1
        self.tally.covered[f"read {kind} by {reader}"] += 1
        try:
            got = self.engines[reader].lines(self.table, view)
        except Exception as error:
            symptom, got = describe(error), None
        finally:
            self.tally.seconds[f"{reader} read"] += time.monotonic() - began
        if got is not None:
            if view.where:
                # What an engine leaves to its caller to filter is filtered here: what counts is that no row is missing.
                got = [line for line in got if accepts(table, line, view.where)]
            got.sort()
            if got == expected:
                return
            symptom = "the rows differ\n" + difference(got, expected, table)
        limit = limits.of_read(reader, view, self.table, symptom)
        if limit is None:
            raise Fault(self.at, reader, f"reads {show(view)}", f"{symptom}\n{self.others(reader, view, expected)}")
        self.tally.excused[limit] += 1

    def others(self, reader: str, view: peers.View, expected: list[str]) -> str:
        """What the other engines say to what one of them reads otherwise."""
        said = []
        for other in READERS:
            if other != reader:
                try:
                    lines = self.engines[other].lines(self.table, view)
                    kept = [line for line in lines if not view.where or accepts(self.table, line, view.where)]
                    said.append(f"{other} {'as expected' if sorted(kept) == expected else 'otherwise, too'}")
                except Exception as error:
                    said.append(f"{other} fails ({str(error).splitlines()[0][:100]})")
        return "  " + ", ".join(said)

    def check(self) -> None:
        findings = self.do(self.at, "check", "siltstone", lambda: self.engines["siltstone"].check(self.table, bare=not self.ours))
        # What others put above our pointer is adopted by our next commit.
        findings = [finding for finding in findings if "the next commit adopts it" not in finding]
        if findings:
            raise Fault(self.at, "siltstone", "check finds faults", "\n".join(findings[:10]))


def accepts(table: peers.Table, line: str, where: tuple) -> bool:
    from oracle import accepts as accepted
    return accepted(table, json.loads(line), where)


def show(view: peers.View) -> str:
    said = [f"{name} {value}" for name, value in vars(view).items() if value is not None]
    return ", ".join(said) or "the whole table"


def difference(got: list[str], wanted: list[str], table: peers.Table) -> str:
    """The first rows that one side has more often than the other, with the columns that differ where the key is the same."""
    more, less = collections.Counter(got), collections.Counter(wanted)
    extra, missing = sorted((more - less).elements()), sorted((less - more).elements())
    out = [f"  {len(got)} rows, {len(extra)} too many, {len(missing)} missing"]
    names = [name for name, _ in table.columns]
    if all(key in names for key in table.primary):
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
