"""BinaryRow bytes, hashes and buckets: what Siltstone computes, what its own tests hold as golden, and what the pinned Java computes, compared."""

from __future__ import annotations

import random
from pathlib import Path

import fastavro

import canon
from cases import ALL_TYPES, NESTED_TYPES

BUCKETS = [1, 3, 4, 7, 1000]
MADE_BY_JAVA = Path(__file__).resolve().parents[2] / "shared/format/testdata/java-1.4.2"

# Types, cells, hash, bucket of 4, bucket of 7: the values that the tests of shared/format/src/bucket.rs hold.
HASHES = [
    (["INT"], [1], 1_465_514_398, 2, 5), (["BIGINT"], [1], 1_465_514_398, 2, 5), (["BOOLEAN"], [True], 1_465_514_398, 2, 5),
    (["INT"], [-1], 1_133_687_267, 3, 6), (["STRING"], ["abc"], -101_922_419, 3, 4), (["STRING"], [""], 302_122_119, 3, 5),
    (["STRING"], ["1234567"], 199_144_172, 0, 3), (["STRING"], ["hello paimon"], 168_916_036, 0, 2),
    (["BYTES"], ["010203"], 1_066_645_297, 1, 4), (["DECIMAL(10, 2)"], ["1.50"], -616_511_498, 2, 1),
    (["DECIMAL(30, 2)"], ["-1.50"], 635_775_811, 3, 6), (["TIMESTAMP(3)"], [1_700_000_000_123_000_000], -1_285_420_957, 1, 2),
    (["TIMESTAMP(6)"], [1_700_000_000_123_456_000], 1_196_670_069, 1, 0), (["DATE"], [19_700], 542_528_753, 1, 4),
    (["DOUBLE"], ["3ff8000000000000"], 1_860_889_473, 1, 2), (["FLOAT"], ["3fc00000"], -173_842_779, 3, 5),
    (["TINYINT"], [-1], 2_004_758_659, 3, 1), (["SMALLINT"], [-2], 557_672_611, 3, 6),
    (["INT", "STRING"], [7, "héllo"], 42_243_723, 3, 4),
]

# Types, cells, bytes: the rows that shared/format/src/binary_row/tests.rs holds.
ROWS = [
    (["INT", "STRING", "STRING", "BIGINT", "BOOLEAN"], [42, "paimon", "primary key table", None, True],
     "00000005 0008000000000000 2a00000000000000 7061696d6f6e0086 1100000030000000 0000000000000000 0100000000000000"
     " 7072696d617279206b6579207461626c65 00000000000000"),
    (["DECIMAL(10, 2)", "DECIMAL(20, 2)", "TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMP(9)"],
     ["-12.34", "12345678901234567.89", 1_700_000_000_123_000_000, 1_700_000_000_123_456_000, None],
     "00000005 0010000000000000 2efbffffffffffff 0800000030000000 7b68e5cf8b010000 40f5060040000000 0000000048000000"
     " 112210f47de98115 0000000000000000 7b68e5cf8b010000 0000000000000000"),
]

# The table that Golden.java made: its partition and its trimmed primary key, and its buckets.
PARTITION, KEY, TABLE_BUCKETS = ["DATE", "STRING"], ["BIGINT NOT NULL", "STRING NOT NULL"], 2


def check(run) -> None:
    run.compare("hashes of shared/format", _hashes(run))
    run.compare("rows of shared/format", _rows(run))
    run.compare("manifests of shared/format/testdata", _manifests(run))
    run.compare("made-up rows of every type", _random_rows(run))


def _types(texts: list[str]) -> list[canon.Type]:
    return [canon.parse(text) for text in texts]


def _hashes(run):
    for texts, cells, expected, four, seven in HASHES:
        for engine in (run.java, run.siltstone):
            row = engine.encode(_types(texts), [cells], [4, 7])[0]
            name = f"{type(engine).__name__} {', '.join(texts)} {cells}"
            yield name, {"hash": row["hash"], "buckets": row["buckets"]}, {"hash": expected, "buckets": [four, seven]}


def _rows(run):
    for texts, cells, expected in ROWS:
        for engine in (run.java, run.siltstone):
            row = engine.encode(_types(texts), [cells], [])[0]
            yield f"{type(engine).__name__} {', '.join(texts)}", row["bytes"], expected.replace(" ", "")


def _manifests(run):
    """Java's own bytes in the committed manifests: the pinned Java makes the same ones of their content, and so do we; buckets too."""
    seen = 0
    for path in sorted((MADE_BY_JAVA / "manifest").glob("manifest-*")):
        if path.name.startswith("manifest-list"):
            continue
        with path.open("rb") as file:
            for entry in fastavro.reader(file):
                parts = [(PARTITION, entry["_PARTITION"])] + [(KEY, entry["_FILE"][end]) for end in ("_MIN_KEY", "_MAX_KEY")]
                for texts, stored in parts:
                    java = run.java.decode(_types(texts), [stored.hex()], [TABLE_BUCKETS])[0]
                    we = run.siltstone.encode(_types(texts), [java["cells"]], [TABLE_BUCKETS])[0]
                    yield f"{path.name} Java", java["bytes"], stored.hex()
                    yield f"{path.name} Siltstone", we["bytes"], stored.hex()
                    if texts is KEY:
                        yield f"{path.name} bucket", [java["buckets"], we["buckets"]], [[entry["_BUCKET"]]] * 2
                    seen += 1
    yield "entries seen", seen >= 12, True


def _random_rows(run):
    texts = [*ALL_TYPES.values(), *NESTED_TYPES.values(), "MULTISET<STRING>"]
    rng = random.Random(5)
    for text in [None, *texts]:
        types = _types(texts if text is None else [text])
        rows = [[canon.sample(t, rng) for t in types] for _ in range(20)]
        pairs = zip(rows, run.java.encode(types, rows, BUCKETS), run.siltstone.encode(types, rows, BUCKETS), strict=True)
        for cells, java, we in pairs:
            yield f"{text or 'every type'} {cells}", we, java
