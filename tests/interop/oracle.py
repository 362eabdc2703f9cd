"""What a table must hold, in plain Python that knows nothing of the format: the newest version of every key, through changes of the schema."""

from __future__ import annotations

import operator
import struct
from dataclasses import dataclass, replace

import canon
from peers import Table

# Row kinds that take a row away.
RETRACTIONS = ("-U", "-D")


@dataclass
class Version:
    """The newest version of a key. `texts` are the canonical texts of its cells, and `line` that of the row, made when they are asked for."""

    order: tuple
    alive: bool
    cells: list
    texts: list[str] | None = None
    line: str | None = None


class Oracle:
    """The rows of a table. A later row wins, or by `sequence.field` the one with the better values, and of equals the later one. With
    `ignore-delete` rows that take something away are none."""

    def __init__(self, table: Table) -> None:
        self.table, self.newest, self.written = table, {}, 0

    @property
    def sequence(self) -> list[str]:
        return [name for name in dict(self.table.options).get("sequence.field", "").split(",") if name]

    @property
    def kind_place(self) -> int | None:
        """Of the column that tells a row's kind."""
        name = dict(self.table.options).get("rowkind.field")
        return None if name is None else self.table.index(name)

    def order(self, cells: list) -> tuple:
        """What decides between versions of a key, but for the time of writing."""
        falling = dict(self.table.options).get("sequence.field.sort-order") == "descending"
        return tuple((-1 if falling else 1) * cells[self.table.index(name)] for name in self.sequence)

    def write(self, kind: str, cells: list) -> None:
        self.written += 1
        if kind in RETRACTIONS and dict(self.table.options).get("ignore-delete") == "true":
            return
        key, order = self.table.key(cells), (*self.order(cells), self.written)
        before = self.newest.get(key)
        if before is None or order > before.order:
            self.newest[key] = Version(order, kind not in RETRACTIONS, cells)

    def alive(self) -> list[Version]:
        return [version for version in self.newest.values() if version.alive]

    def lines(self) -> list[str]:
        """Canonical rows, sorted."""
        return sorted(version.line for version in self._written())

    def _written(self) -> list[Version]:
        """The rows, with their texts."""
        alive, types = self.alive(), self.table.types
        for version in alive:
            if version.line is None:
                version.texts = canon.texts(version.cells, types)
                version.line = canon.joined(version.texts)
        return alive

    def read(self, where: tuple | None, columns: tuple[str, ...] | None) -> list[str]:
        """The rows of a condition, or some columns of them."""
        return self.parted(where, columns)[0]

    def parted(self, where: tuple | None, columns: tuple[str, ...] | None) -> tuple[list[str], list[str]]:
        """The rows of a condition, or some columns of them, sorted; and the other rows."""
        accepted = (lambda cells: True) if where is None else accepting(self.table, where)
        parts: tuple[list, list] = ([], [])
        for version in self._written():
            parts[not accepted(version.cells)].append(version)
        if columns is None:
            kept, rest = ([version.line for version in part] for part in parts)
        else:
            places = [self.table.index(name) for name in columns]
            kept, rest = ([canon.joined([version.texts[i] for i in places]) for version in part] for part in parts)
        return sorted(kept), rest

    def alter(self, change: list) -> None:
        """One change of the schema, as `Java.alter` takes it, with types as canon.Type."""
        verb, (name, *inside) = change[:2]
        columns, place = list(self.table.columns), None if change[0] == "add" and len(change[1]) == 1 else self.table.index(name)
        if inside:
            # Only this: a field more at the end of a ROW.
            row = columns[place][1]
            columns[place] = (name, replace(row, inner=(*row.inner, (inside[0], change[2]))))
            self._each(lambda cells: [[*c, None] if i == place and c is not None else c for i, c in enumerate(cells)])
        elif verb == "add":
            columns.append((name, change[2]))
            self._each(lambda cells: [*cells, None])
        elif verb == "drop":
            del columns[place]
            self._each(lambda cells: cells[:place] + cells[place + 1:])
        elif verb == "rename":
            columns[place] = (change[2], columns[place][1])
            renamed = tuple(change[2] if key == name else key for key in self.table.primary)
            self.table = replace(self.table, primary=renamed)
        elif verb == "type":
            old, new = columns[place][1], change[2]
            columns[place] = (name, new)
            self._each(lambda cells: [widened(c, old, new) if i == place else c for i, c in enumerate(cells)])
        elif verb == "first":
            columns.insert(0, columns.pop(place))
            self._each(lambda cells: [cells[place], *cells[:place], *cells[place + 1:]])
        else:
            raise ValueError(change)
        self.table = replace(self.table, columns=tuple(columns))

    def _each(self, change) -> None:
        self.newest = {key: Version(v.order, v.alive, change(v.cells)) for key, v in self.newest.items()}


def widened(cell, old: canon.Type, new: canon.Type):
    """The cell in a wider type."""
    if cell is not None and old.kind == "FLOAT" and new.kind == "DOUBLE":
        return struct.pack(">d", canon.real(cell)).hex()
    return cell


def accepting(table: Table, where: tuple):
    """What says of a row's cells whether they meet a condition."""
    column, name, literal = where
    place, t = table.index(column), dict(table.columns)[column]
    compare, wanted = {"=": operator.eq, ">=": operator.ge, "<": operator.lt}[name], canon.comparable(literal, t)
    return lambda cells: cells[place] is not None and compare(canon.comparable(cells[place], t), wanted)
