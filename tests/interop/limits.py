"""What engines are known not to do. Nothing else is excused, and each limit has a proof: a small table that shows it (`tests/interop/long --limits`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import canon
from histories import Step
from peers import Table, View


@dataclass(frozen=True)
class Proof:
    """A table with the key `k INT` and these columns, made by Siltstone or Java, batches that one engine writes, and what is read."""

    columns: dict[str, str]
    writer: str
    batches: list[list]
    options: dict[str, str]
    view: View = View()


@dataclass(frozen=True)
class Limit:
    """What `engine` does wrong: when it reads (`verb` "read"), or when it takes a step of that name; then the step is left out.

    `symptom` is what an error says, or "the rows differ".
    """

    name: str
    engine: str
    verb: str
    symptom: str
    applies: Callable[[Table, View | None], bool]
    proof: Proof


def has(kind: str, size: tuple[int, ...] | None = None) -> Callable[[Table, View | None], bool]:
    """A column of this type, nested ones too."""
    def inside(t: canon.Type) -> bool:
        return t.kind == kind and size in (None, t.size) or any(inside(inner) for _, inner in t.inner)
    return lambda table, view: any(inside(t) for _, t in table.columns)


def option(name: str, value: str | None = None) -> Callable[[Table, View | None], bool]:
    return lambda table, view: dict(table.options).get(name) == value if value else name in dict(table.options)


def where(kind: str) -> Callable[[Table, View | None], bool]:
    """A condition on a column of this type."""
    return lambda table, view: view is not None and view.where is not None and dict(table.columns)[view.where[0]].kind == kind


NANOS = Proof({"t": "TIMESTAMP(9)"}, "siltstone", [[["+I", [1, 1_000]]], [["+I", [1, 2_000]]]], {})
DESCENDING = Proof({"s": "INT NOT NULL"}, "java-1.4.2", [[["+I", [1, 3]], ["+I", [1, 9]]]],
                   {"sequence.field": "s", "sequence.field.sort-order": "descending"})
LIMITS = (
    Limit("TIMESTAMP(9) of INT64 nanoseconds, as Siltstone, paimon-rust and Java 2.0.0 write it, is read as milliseconds", "java-1.4.2", "read",
          "the rows differ", has("TIMESTAMP", (9,)), NANOS),
    Limit("conditions on a DECIMAL of up to 18 digits fail on files that hold it as bytes, as pypaimon writes it", "java-1.4.2", "read",
          "FilterPredicate column: .* type \\(java.lang.(Integer|Long)\\) does not match", where("DECIMAL"),
          Proof({"d": "DECIMAL(9, 3)"}, "pypaimon", [[["+I", [1, "1.500"]]]], {}, View(where=("d", "=", "1.500")))),
    Limit("`=` finds no wide DECIMAL that a dictionary holds, as pypaimon writes it", "java-1.4.2", "read",
          "the rows differ", lambda table, view: where("DECIMAL")(table, view) and view.where[1] == "=",
          Proof({"d": "DECIMAL(19, 0)"}, "pypaimon", [[["+I", [1, "0"]], ["+I", [2, "0"]]]], {}, View(where=("d", "=", "0")))),
    Limit("and written again so when it compacts", "java-1.4.2", "compact", "the rows differ", has("TIMESTAMP", (9,)), NANOS),
    Limit("writes no table with target-file-row-num", "pypaimon", "write", "target-file-row-num is set on this table but pypaimon supports",
          option("target-file-row-num"), Proof({"v": "INT"}, "pypaimon", [[["+I", [1, 3]]]], {"target-file-row-num": "100"})),
    Limit("its buffer of rows ignores sequence.field.sort-order = descending: a batch keeps the wrong version of a key", "java-1.4.2", "write",
          "the rows differ", option("sequence.field.sort-order", "descending"), DESCENDING),
)


# What a step does, where it is called otherwise.
VERBS = {"fill": "write"}


def of_read(reader: str, view: View, table: Table, symptom: str) -> str | None:
    """The limit that explains a difference."""
    for limit in LIMITS:
        if (limit.engine, limit.verb) == (reader, "read") and limit.applies(table, view) and re.search(limit.symptom, symptom):
            return f"{limit.engine}: {limit.name}"
    return None


def of_step(step: Step, table: Table) -> str | None:
    """Why an engine does not take a step on this table."""
    for limit in LIMITS:
        if (limit.engine, limit.verb) == (step.actor, VERBS.get(step.verb, step.verb)) and limit.applies(table, None):
            return f"{limit.engine}: {limit.name}"
    return None
