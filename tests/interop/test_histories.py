"""The random histories themselves: their seeds, and the oracle that says what is right."""

from __future__ import annotations

import json
import random
import unittest
from dataclasses import replace

import canon
import differential
import histories
import limits
from canon import parse
from oracle import Oracle, accepting
from peers import Table


def table(columns: dict[str, str], **options: str) -> Table:
    named = tuple(options.items())
    return Table("t.t", tuple((n, parse(t)) for n, t in columns.items()), ("k",), (), named)


class Seeds(unittest.TestCase):
    def test_one_seed_gives_one_history_and_another_gives_another(self) -> None:
        for seed in range(20):
            self.assertEqual(histories.draw(seed), histories.draw(seed))
            self.assertEqual(histories.key_pool(histories.draw(seed)), histories.key_pool(histories.draw(seed)))
        self.assertNotEqual(histories.draw(1).table, histories.draw(2).table)

    def test_every_history_fills_the_table_first_and_is_compacted_by_us(self) -> None:
        for seed in range(200):
            history = histories.draw(seed)
            self.assertEqual(len(history.steps), histories.STEPS)
            self.assertEqual(history.steps[0].verb, "fill")
            self.assertIn(("compact", "siltstone"), [(s.verb, s.actor) for s in history.steps])
            self.assertGreaterEqual(len(histories.key_pool(history)), 1_000)

    def test_rows_of_a_step_do_not_depend_on_other_steps(self) -> None:
        history = histories.draw(3)
        pool, names = histories.key_pool(history), {name: name for name in history.table.primary}
        made = [histories.Rows(Oracle(history.table), pool, names, random.Random(7)).batch(50, True) for _ in range(2)]
        self.assertEqual(*made)

    def test_a_history_without_an_engine_is_the_same_with_java_in_its_place(self) -> None:
        for seed in range(20):
            whole, part = histories.draw(seed), histories.draw(seed, "paimon-rust")
            self.assertEqual(whole.table, part.table)
            for a, b in zip(whole.steps, part.steps, strict=True):
                self.assertEqual(replace(a, actor="java-2.0.0") if a.actor == "paimon-rust" else a, b)

    def test_sparse_statistics_come_with_columns_that_have_none(self) -> None:
        drawn = [dict(histories.draw(seed).table.options) for seed in range(600)]
        sparse = [options for options in drawn if options.get("metadata.stats-dense-store") == "false"]
        showing = [o for o in sparse if o.get("metadata.stats-mode") == "none" or "metadata.stats-keep-first-n-columns" in o]
        self.assertGreater(len(showing), len(sparse) // 2)
        self.assertGreater(len(sparse), 20)

    def test_all_types_and_options_are_drawn(self) -> None:
        tables = [histories.draw(seed).table for seed in range(600)]
        kinds = {t.kind for made in tables for t in made.types}
        self.assertLessEqual({canon.parse(t).kind for t in histories.SCALARS} | {"ARRAY", "MAP", "ROW"}, kinds)
        self.assertLessEqual(set(histories.OPTIONS) | {"sequence.field", "bucket-key", "rowkind.field"}, {name for made in tables for name, _ in made.options})


class TheOracle(unittest.TestCase):
    def test_the_last_row_of_a_key_wins_and_deletes_hide_it(self) -> None:
        oracle = Oracle(table({"k": "INT", "v": "STRING"}))
        for kind, cells in (("+I", [1, "a"]), ("+I", [2, "b"]), ("+U", [1, "c"]), ("-D", [2, None])):
            oracle.write(kind, cells)
        self.assertEqual(oracle.lines(), ['[1,"c"]'])

    def test_deletes_are_none_with_ignore_delete(self) -> None:
        oracle = Oracle(table({"k": "INT", "v": "STRING"}, **{"ignore-delete": "true"}))
        for kind, cells in (("+I", [1, "a"]), ("-D", [1, "a"]), ("-D", [2, None])):
            oracle.write(kind, cells)
        self.assertEqual(oracle.lines(), ['[1,"a"]'])

    def test_a_column_that_tells_the_kind_holds_it(self) -> None:
        drawn = [histories.draw(seed) for seed in range(100)]
        history = next(history for history in drawn if "rowkind.field" in dict(history.table.options))
        names = {name: name for name in history.table.primary}
        rows = histories.Rows(Oracle(history.table), histories.key_pool(history), names, random.Random(7)).batch(400, False)
        place = history.table.index("row_kind")
        self.assertEqual([kind for kind, _ in rows], [cells[place] for _, cells in rows])

    def test_a_sequence_field_decides_and_may_fall(self) -> None:
        for order, wanted in (("ascending", "[1,9]"), ("descending", "[1,3]")):
            oracle = Oracle(table({"k": "INT", "s": "INT"}, **{"sequence.field": "s", "sequence.field.sort-order": order}))
            for value in (5, 9, 3, 7):
                oracle.write("+I", [1, value])
            self.assertEqual(oracle.lines(), [wanted])

    def test_rows_follow_changes_of_the_schema(self) -> None:
        oracle = Oracle(table({"k": "INT", "v": "FLOAT", "r": "ROW<x INT>"}))
        oracle.write("+I", [1, "3fc00000", [4]])
        oracle.write("+I", [2, None, None])
        for change in (["add", ["n"], parse("DATE")], ["type", ["v"], parse("DOUBLE")], ["add", ["r", "y"], parse("INT")],
                       ["rename", ["k"], "key"], ["first", ["n"]]):
            oracle.alter(change)
        self.assertEqual(oracle.lines(), ['[null,1,"3ff8000000000000",[4,null]]', "[null,2,null,null]"])
        self.assertEqual(oracle.table.primary, ("key",))
        oracle.alter(["drop", ["v"]])
        self.assertEqual([name for name, _ in oracle.table.columns], ["n", "key", "r"])

    def test_conditions_compare_numbers_as_numbers_and_never_accept_null(self) -> None:
        made = table({"k": "INT", "d": "DECIMAL(9, 2)"})
        self.assertTrue(accepting(made, ("d", ">=", "9.50"))([1, "10.00"]))
        self.assertFalse(accepting(made, ("d", "<", "9.50"))([1, None]))


    def test_a_condition_parts_the_rows_by_their_texts(self) -> None:
        oracle = Oracle(table({"k": "INT", "v": "STRING", "m": "MAP<STRING NOT NULL, INT>"}))
        for cells in ([1, 'a"\u0001é', [["b", 2], ["a", None]]], [2, None, None], [3, "z", []]):
            oracle.write("+I", cells)
        self.assertEqual(oracle.lines(), ['[1,"a\\"\\u0001é",[["a",null],["b",2]]]', "[2,null,null]", '[3,"z",[]]'])
        self.assertEqual(oracle.parted(("k", "<", 2), ("v", "k")), (['["a\\"\\u0001é",1]'], ["[null,2]", '["z",3]']))
        self.assertEqual(oracle.read(("k", ">=", 2), None), ["[2,null,null]", '[3,"z",[]]'])
        for version in oracle.alive():
            self.assertEqual(version.line, json.dumps(json.loads(version.line), ensure_ascii=False, separators=(",", ":")))


class Coverage(unittest.TestCase):
    def test_workers_add_up_and_a_row_tells_what_met_in_whose_compactions(self) -> None:
        one, two = differential.Tally(digests={"1": "a"}), differential.Tally(digests={"2": "b"})
        one.crossed.update({"a -> b | bucket | INT | value": 2, "a -> b | bucket | INT | null": 1})
        one.covered["pair a -> b"] = 2
        two.crossed.update({"a -> b | num-levels=3 | INT | value": 1, "c -> b | bucket | DATE | value": 1})
        two.covered.update({"pair a -> b": 1, "pair c -> b": 1})
        total = differential.Tally()
        for part in (two, one):
            total.add(differential.Tally.of(json.loads(json.dumps(part.json()))))
        first, second = differential.coverage(total)
        self.assertEqual(first, {"pair": "a -> b", "compactions": 3, "types": 1, "types_with_null": 1, "of_types": 2, "options": 2, "of_options": 2,
                                 "combinations": 3, "of_combinations": 6})
        self.assertEqual((second["pair"], second["compactions"], second["types_with_null"]), ("c -> b", 1, 0))
        in_other_order = differential.Tally(digests={"2": "b", "1": "a"})
        self.assertEqual(total.digest(), in_other_order.digest())


class Limits(unittest.TestCase):
    def test_names_are_told_apart(self) -> None:
        names = [(limit.engine, limit.name) for limit in limits.LIMITS]
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
