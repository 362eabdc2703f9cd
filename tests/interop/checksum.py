"""A checksum of large tables, the same whoever reads the rows and in whatever order they come.

Each cell's text (as in canon.py; NUL stands for null) gives a polynomial hash over its bytes; a row folds its cells' hashes, so that cells must stand
in the same row; the rows are summed. All modulo 2^64. Java's side of it is Peer.checksum.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BASE = 0x100000001B3
MIX = np.uint64(0x9E3779B97F4A7C15)
SHIFT = np.uint64(29)


def of(table: pa.Table, columns: list[str]) -> str:
    """Hexadecimal, without leading zeros."""
    total = np.uint64(0)
    with np.errstate(over="ignore"):
        for batch in table.select(columns).to_batches(max_chunksize=500_000):
            state = np.zeros(batch.num_rows, np.uint64)
            for column in batch.columns:
                state = (state ^ _hashes(_texts(column))) * MIX
                state ^= state >> SHIFT
            total += state.sum(dtype=np.uint64)
    return f"{int(total):x}"


def _texts(column: pa.Array) -> pa.Array:
    """The cells' texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _texts(column.dictionary_decode())
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
    elif pa.types.is_date(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_boolean(kind):
        column = pc.if_else(column, "true", "false")
    elif pa.types.is_floating(kind):
        raise ValueError(f"no checksum of {kind}: its text has no vectorised form")
    return pc.fill_null(column.cast(pa.large_string()), "\0")


def _hashes(texts: pa.Array) -> np.ndarray:
    """Per text, the sum of (byte + 1) * BASE^(place + 1)."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset:texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0]:offsets[-1]].astype(np.uint64)
    starts = offsets[:-1] - offsets[0]
    lengths = np.diff(offsets)
    powers = _powers(int(lengths.max(initial=0)))
    places = np.arange(len(data)) - np.repeat(starts, lengths)
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum((data + np.uint64(1)) * powers[places], dtype=np.uint64)])
    return running[starts + lengths] - running[starts]


def _powers(count: int) -> np.ndarray:
    power, powers = 1, np.empty(max(count, 1), np.uint64)
    for place in range(len(powers)):
        power = power * BASE % (1 << 64)
        powers[place] = power
    return powers
