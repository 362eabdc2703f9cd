"""Types, cells and their one canonical text: what every engine's rows are turned into before they are compared.

A cell is JSON: null; BOOLEAN true or false; whole numbers, DATE (days since 1970), TIME (ms of the day) and timestamps (ns since 1970) are
integers; FLOAT and DOUBLE are the hex of their IEEE bits; DECIMAL is text with all digits of its scale; text is text; bytes are hex;
ARRAY and ROW are lists; MAP and MULTISET are lists of [key, value] pairs, sorted by the key's text. A row is the list of its cells.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import json
import random
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
NANOS_OF_DAY = 86_400_000_000_000
NANOS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass(frozen=True)
class Type:
    """A Paimon type: `kind` is its word, `size` its numbers, `inner` the types inside with their names (rows) or without."""

    kind: str
    nullable: bool = True
    size: tuple[int, ...] = ()
    inner: tuple[tuple[str, Type], ...] = ()

    def json(self):
        """As a schema file holds it."""
        end = "" if self.nullable else " NOT NULL"
        if self.kind == "ARRAY":
            return {"type": "ARRAY" + end, "element": self.inner[0][1].json()}
        if self.kind == "MULTISET":
            return {"type": "MULTISET" + end, "element": self.inner[0][1].json()}
        if self.kind == "MAP":
            return {"type": "MAP" + end, "key": self.inner[0][1].json(), "value": self.inner[1][1].json()}
        if self.kind == "ROW":
            fields = [{"id": i, "name": name, "type": t.json()} for i, (name, t) in enumerate(self.inner)]
            return {"type": "ROW" + end, "fields": fields}
        if self.kind == "LTZ":
            return f"TIMESTAMP({self.size[0]}) WITH LOCAL TIME ZONE{end}"
        return self.kind + (f"({', '.join(map(str, self.size))})" if self.size else "") + end

    def arrow(self) -> pa.DataType:
        k, n = self.kind, self.size
        plain = {"BOOLEAN": pa.bool_(), "TINYINT": pa.int8(), "SMALLINT": pa.int16(), "INT": pa.int32(), "BIGINT": pa.int64(),
                 "FLOAT": pa.float32(), "DOUBLE": pa.float64(), "CHAR": pa.string(), "VARCHAR": pa.string(), "STRING": pa.string(),
                 "BINARY": pa.binary(), "VARBINARY": pa.binary(), "BYTES": pa.binary(), "DATE": pa.date32(), "TIME": pa.time32("ms")}
        if k in plain:
            return plain[k]
        if k == "DECIMAL":
            return pa.decimal128(*n)
        if k in ("TIMESTAMP", "LTZ"):
            return pa.timestamp(["s", "ms", "us", "ns"][(n[0] + 2) // 3], tz="UTC" if k == "LTZ" else None)
        inner = [pa.field(name, t.arrow(), t.nullable) for name, t in self.inner]
        if k == "ARRAY":
            return pa.list_(inner[0])
        if k == "ROW":
            return pa.struct(inner)
        value = inner[1] if k == "MAP" else pa.field("value", pa.int32(), False)
        return pa.map_(inner[0].with_name("key").with_nullable(False), value.with_name("value"))


def parse(text: str) -> Type:
    """A type as SQL text: `DECIMAL(10, 2) NOT NULL`, `MAP<STRING NOT NULL, ROW<x INT, y ARRAY<DOUBLE>>>`."""
    t, rest = _parse(text)
    if rest.strip():
        raise ValueError(f"{text!r}: {rest!r} is left over")
    return t


def _parse(text: str) -> tuple[Type, str]:
    head = re.match(r"\s*(\w+)\s*(?:\(([\d, ]+)\))?\s*(WITH LOCAL TIME ZONE)?", text)
    kind, size = head[1], tuple(int(n) for n in (head[2] or "").split(",") if n.strip())
    kind, rest, inner = ("LTZ" if head[3] else kind), text[head.end():], []
    if rest.startswith("<"):
        while rest[0] != ">":
            name = re.match(r"[<,]\s*(\w+)(?=\s)", rest) if kind == "ROW" else re.match(r"[<,]()", rest)
            t, rest = _parse(rest[name.end():])
            inner.append((name[1] or ("key", "value")[len(inner)] if kind == "MAP" else name[1] or "item", t))
            rest = rest.lstrip()
        rest = rest[1:]
    null = re.match(r"\s*NOT NULL", rest)
    return Type(kind, not null, size, tuple(inner)), rest[null.end():] if null else rest


# --- canonical text ----------------------------------------------------------------------------------------------------

def normal(cell, t: Type):
    """The cell with the pairs of its maps sorted."""
    if cell is None or not t.inner:
        return cell
    if t.kind == "ARRAY":
        return [normal(c, t.inner[0][1]) for c in cell]
    if t.kind == "ROW":
        return [normal(c, inner) for c, (_, inner) in zip(cell, t.inner, strict=True)]
    value = t.inner[1][1] if t.kind == "MAP" else Type("INT", False)
    return sorted(([normal(k, t.inner[0][1]), normal(v, value)] for k, v in cell), key=lambda pair: _text(pair[0]).encode())


def line(cells: list, types: list[Type]) -> str:
    """The one text of a row: what the peers of Java and Siltstone write, too."""
    return joined(texts(cells, types))


def texts(cells: list, types: list[Type]) -> list[str]:
    """The text of each cell of a row."""
    return [_text(normal(c, t)) if t.inner else _plain(c) for c, t in zip(cells, types, strict=True)]


def joined(texts: Iterable[str]) -> str:
    """A row of its cells' texts."""
    return f"[{','.join(texts)}]"


def column_texts(cells: list, t: Type) -> list[str]:
    """The text of each cell of a column."""
    return [_text(normal(c, t)) for c in cells] if t.inner else [_plain(c) for c in cells]


# Kept, since millions of rows are written in a long run, and `json.dumps` would make one up for each.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


def _text(cell) -> str:
    return _encode(cell)


# Of what has nothing inside, without the encoder, which would take most of a run's time.
_SHOWN = {str: json.encoder.encode_basestring, int: int.__repr__, bool: lambda cell: "true" if cell else "false", type(None): lambda cell: "null"}


def _plain(cell) -> str:
    return _SHOWN[cell.__class__](cell)


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


# --- Arrow -------------------------------------------------------------------------------------------------------------

def from_arrow(array: pa.Array, t: Type) -> list:
    """The cells of a column."""
    if isinstance(array, pa.ChunkedArray):
        return [cell for chunk in array.chunks for cell in from_arrow(chunk, t)]
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_nested(kind):
        return _from_nested(array, t)
    if pa.types.is_timestamp(kind):
        return [None if n is None else n * NANOS[kind.unit] for n in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_date32(kind):
        return array.cast(pa.int32()).to_pylist()
    if pa.types.is_time(kind):
        width = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return [None if n is None else n * NANOS[kind.unit] // 1_000_000 for n in array.cast(width).to_pylist()]
    cells = array.to_pylist()
    if pa.types.is_float32(kind):
        show = lambda f: struct.pack(">f", f).hex()
    elif pa.types.is_float64(kind):
        show = lambda f: struct.pack(">d", f).hex()
    elif pa.types.is_decimal(kind):
        show = lambda d: format(d, "f")
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        show = bytes.hex
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return cells
    else:
        raise ValueError(f"no cells of {kind}")
    return [None if c is None else show(c) for c in cells]


def _from_nested(array: pa.Array, t: Type) -> list:
    valid = array.is_valid().to_pylist()
    if pa.types.is_struct(array.type):
        names = [array.type.field(i).name for i in range(array.type.num_fields)]
        columns = [from_arrow(array.field(names.index(name)), inner) for name, inner in t.inner]
        return [[c[i] for c in columns] if ok else None for i, ok in enumerate(valid)]
    offsets = array.offsets.to_pylist()
    if pa.types.is_map(array.type):
        value = t.inner[1][1] if t.kind == "MAP" else Type("INT", False)
        keys, values = from_arrow(array.keys, t.inner[0][1]), from_arrow(array.items, value)
        items = [list(pair) for pair in zip(keys, values, strict=True)]
    else:
        items = from_arrow(array.values, t.inner[0][1])
    return [items[offsets[i]:offsets[i + 1]] if ok else None for i, ok in enumerate(valid)]


def to_arrow(rows: list[list], columns: list[tuple[str, Type]]) -> pa.Table:
    """Rows as a table whose schema is that of the columns."""
    arrays = [pa.array([to_python(row[i], t) for row in rows], t.arrow()) for i, (_, t) in enumerate(columns)]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(columns))


def arrow_schema(columns: list[tuple[str, Type]]) -> pa.Schema:
    return pa.schema([pa.field(name, t.arrow(), t.nullable) for name, t in columns])


def to_python(cell, t: Type):
    """What pyarrow takes for a cell."""
    if cell is None:
        return None
    if t.kind in ("FLOAT", "DOUBLE"):
        return real(cell)
    if t.kind == "DECIMAL":
        return decimal.Decimal(cell)
    if t.kind in ("BINARY", "VARBINARY", "BYTES"):
        return bytes.fromhex(cell)
    if t.kind in ("TIMESTAMP", "LTZ"):
        return cell // NANOS[t.arrow().unit]
    if t.kind == "ARRAY":
        return [to_python(c, t.inner[0][1]) for c in cell]
    if t.kind == "ROW":
        return {name: to_python(c, inner) for c, (name, inner) in zip(cell, t.inner, strict=True)}
    if t.kind in ("MAP", "MULTISET"):
        value = t.inner[1][1] if t.kind == "MAP" else Type("INT", False)
        return [(to_python(k, t.inner[0][1]), to_python(v, value)) for k, v in cell]
    return cell


def real(bits: str) -> float:
    return struct.unpack(">f" if len(bits) == 8 else ">d", bytes.fromhex(bits))[0]


# --- JSON of records and of `silt scan` -----------------------------------------------------------------------------------

def _iso(nanos: int) -> str:
    day, rest = divmod(nanos, NANOS_OF_DAY)
    date = datetime.date.fromordinal(day + EPOCH_DAY).isoformat()
    return f"{date}T{_clock(rest)}"


def _clock(nanos: int) -> str:
    seconds, fraction = divmod(nanos, 1_000_000_000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return clock if fraction == 0 else f"{clock}.{fraction:09}".rstrip("0")


def _unclock(text: str) -> int:
    clock, _, fraction = text.partition(".")
    h, m, s = map(int, clock.split(":"))
    return ((h * 60 + m) * 60 + s) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def record(cell, t: Type):
    """The cell as a plain JSON record of a stream holds it."""
    if cell is None:
        return None
    if t.kind in ("FLOAT", "DOUBLE"):
        value = real(cell)
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(str(value), value)
    if t.kind in ("BINARY", "VARBINARY", "BYTES"):
        return base64.b64encode(bytes.fromhex(cell)).decode()
    if t.kind == "DATE":
        return datetime.date.fromordinal(cell + EPOCH_DAY).isoformat()
    if t.kind == "TIME":
        return _clock(cell * 1_000_000)
    if t.kind in ("TIMESTAMP", "LTZ"):
        return _iso(cell) + ("Z" if t.kind == "LTZ" else "")
    if t.kind == "ARRAY":
        return [record(c, t.inner[0][1]) for c in cell]
    if t.kind == "ROW":
        return {name: record(c, inner) for c, (name, inner) in zip(cell, t.inner, strict=True)}
    if t.kind in ("MAP", "MULTISET"):
        value = t.inner[1][1] if t.kind == "MAP" else Type("INT", False)
        return [[record(k, t.inner[0][1]), record(v, value)] for k, v in cell]
    return cell


def from_silt(value, t: Type):
    """The cell of a value that `silt scan --json` printed; numbers come as their own digits (see `loads`)."""
    if value is None or t.kind in ("BOOLEAN", "DECIMAL", "CHAR", "VARCHAR", "STRING", "BINARY", "VARBINARY", "BYTES"):
        return value
    if t.kind in ("FLOAT", "DOUBLE"):
        return struct.pack(">f" if t.kind == "FLOAT" else ">d", float(value)).hex()
    if t.kind == "DATE":
        return datetime.date.fromisoformat(value).toordinal() - EPOCH_DAY
    if t.kind == "TIME":
        return _unclock(value) // 1_000_000
    if t.kind in ("TIMESTAMP", "LTZ"):
        date, _, clock = value.partition("T")
        return (datetime.date.fromisoformat(date).toordinal() - EPOCH_DAY) * NANOS_OF_DAY + _unclock(clock)
    if t.kind == "ARRAY":
        return [from_silt(v, t.inner[0][1]) for v in value]
    if t.kind == "ROW":
        return [from_silt(value[name], inner) for name, inner in t.inner]
    if t.kind in ("MAP", "MULTISET"):
        item = t.inner[1][1] if t.kind == "MAP" else Type("INT", False)
        return [[from_silt(k, t.inner[0][1]), from_silt(v, item)] for k, v in value]
    return int(value)


def loads(text: str):
    """JSON with fractions kept as text: a float of 32 bits must not go through one of 64 twice."""
    return json.loads(text, parse_float=str)


# --- made-up values -------------------------------------------------------------------------------------------------------

WORDS = ["", "a", "B", "é", "a\u0000b", "\u007f", "\uffff", "\U0001f600", "line\nbreak", "tab\tand \"quotes\" \\", "1234567", "12345678",
         "Zażółć gęślą jaźń", "x" * 300, "z" * 15 + "\uffff" * 3, "\U0010ffff" * 20,
         "same first sixteen: 1", "same first sixteen: 2", "\u0085\u2028", "it's"]
SPECIAL_REALS = [0.0, -0.0, 1.5, -1.0, float("inf"), float("-inf"), float("nan")]
YEAR_1, YEAR_9999 = (datetime.date(y, 1, 1).toordinal() - EPOCH_DAY for y in (1, 9999))


def sample(t: Type, rng: random.Random, null_share: float = 0.15):
    """A made-up cell: edges of the type as likely as anything between; null sometimes where the type takes it."""
    if t.nullable and rng.random() < null_share:
        return None
    pick = rng.choice
    bits = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}.get(t.kind)
    if bits:
        top = 1 << (bits - 1)
        return pick([0, 1, -1, top - 1, -top, rng.randrange(-top, top), rng.randrange(-100, 100)])
    if t.kind == "BOOLEAN":
        return rng.random() < 0.5
    if t.kind == "FLOAT":
        edges = [*SPECIAL_REALS, 3.4028234663852886e38, 1.401298464324817e-45]
        return struct.pack(">f", pick([*edges, rng.gauss(0, 1e6)])).hex()
    if t.kind == "DOUBLE":
        edges = [*SPECIAL_REALS, 1.7976931348623157e308, 5e-324, 0.1]
        return struct.pack(">d", pick([*edges, rng.gauss(0, 1e12)])).hex()
    if t.kind == "DECIMAL":
        precision, scale = t.size
        top = 10**precision
        unscaled = pick([0, 1, -1, top - 1, 1 - top, rng.randrange(-top + 1, top), rng.randrange(1000) % top])
        digits = f"{abs(unscaled):0{scale + 1}}"
        whole, fraction = digits[:len(digits) - scale], digits[len(digits) - scale:]
        return ("-" if unscaled < 0 else "") + whole + ("." + fraction if scale else "")
    if t.kind in ("CHAR", "VARCHAR", "STRING"):
        text = pick([*WORDS, "".join(rng.choices("abcdefghij ", k=rng.randrange(1, 40)))])
        return text[:t.size[0]] if t.size else text
    if t.kind in ("BINARY", "VARBINARY", "BYTES"):
        length = rng.randrange(0, (t.size[0] if t.size else 40) + 1)
        return rng.randbytes(length).hex()
    if t.kind == "DATE":
        return pick([0, -1, YEAR_1, YEAR_9999, 19_782, rng.randrange(-40_000, 40_000)])
    if t.kind == "TIME":
        step = 10 ** (3 - min(t.size[0], 3))
        return pick([0, 86_399_999, rng.randrange(86_400_000)]) // step * step
    if t.kind in ("TIMESTAMP", "LTZ"):
        # Nine digits are stored in 64 bits of nanoseconds, and pypaimon reads microseconds.
        low, high = (YEAR_1, YEAR_9999) if t.size[0] <= 6 else (-106_000, 106_000)
        step = 10 ** (9 - min(t.size[0], 6))
        edges = [0, -1, low * NANOS_OF_DAY, (high + 1) * NANOS_OF_DAY - 1, 1_700_000_000_123_456_000]
        return pick([*edges, rng.randrange(-NANOS_OF_DAY * 30_000, NANOS_OF_DAY * 30_000)]) // step * step
    if t.kind == "ARRAY":
        return [sample(t.inner[0][1], rng) for _ in range(rng.randrange(4))]
    if t.kind == "ROW":
        return [sample(inner, rng) for _, inner in t.inner]
    key, pairs = Type(t.inner[0][1].kind, False, t.inner[0][1].size), {}
    for _ in range(rng.randrange(4)):
        value = sample(t.inner[1][1], rng) if t.kind == "MAP" else rng.randrange(1, 9)
        cell = sample(key, rng)
        pairs[json.dumps(cell)] = [cell, value]
    return list(pairs.values())


def comparable(cell, t: Type):
    """The cell as something that compares as its type does."""
    return decimal.Decimal(cell) if t.kind == "DECIMAL" else cell
