//! The merge against an oracle map, and small cases that read as sentences.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::Array;
use proptest::prelude::*;
use siltstone_format::{
    schema::{Column, TableSchema},
    types::DataType,
    value::Value,
};

use super::*;
use crate::{
    batch::{DELETE, INSERT, UPDATE_AFTER, UPDATE_BEFORE},
    rows::{batch_of, row_at},
};

/// (key, sequence number, kind, order value)
type Row = (i64, i64, i8, Option<i32>);

fn layout(key_type: &str, options: &[(&str, &str)]) -> FileLayout {
    let column = |name: &str, t: &str| Column::new(name, DataType::parse(t).unwrap());
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let columns = vec![column("k", key_type), column("s", "INT"), column("v", "STRING")];
    let schema = TableSchema::create(columns, vec![], vec!["k".into()], options, None, 0).unwrap();
    FileLayout::new(Arc::new(schema)).unwrap()
}

fn key_value(layout: &FileLayout, key: i64) -> Value {
    match layout.values().field(0).data_type() {
        arrow::datatypes::DataType::Int64 => Value::BigInt(key),
        // Ten keys each have the same first eight bytes.
        _ => Value::String(format!("{:03}-keys-{:02}", key / 10, key % 10)),
    }
}

fn key_of(value: Value) -> i64 {
    match value {
        Value::BigInt(key) => key,
        Value::String(text) => {
            let (tens, ones) = text.split_once("-keys-").unwrap();
            tens.parse::<i64>().unwrap() * 10 + ones.parse::<i64>().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn batch(layout: &FileLayout, rows: &[Row]) -> KeyValueBatch {
    let values: Vec<Vec<Value>> = rows
        .iter()
        .map(|(k, q, _, s)| {
            vec![key_value(layout, *k), s.map_or(Value::Null, Value::Int), Value::String(format!("v{q}"))]
        })
        .collect();
    KeyValueBatch::new(
        batch_of(layout, &values).unwrap(),
        rows.iter().map(|r| r.1).collect::<Vec<_>>().into(),
        rows.iter().map(|r| r.2).collect::<Vec<_>>().into(),
    )
    .unwrap()
}

fn runs<'a>(layout: &FileLayout, runs: &[Vec<Row>], batch_rows: usize) -> Vec<RunBatches<'a>> {
    runs.iter()
        .map(|rows| {
            let batches: Vec<_> = rows.chunks(batch_rows).map(|chunk| Ok(batch(layout, chunk))).collect();
            Box::new(batches.into_iter()) as RunBatches<'a>
        })
        .collect()
}

fn merged(
    layout: &FileLayout,
    input: &[Vec<Row>],
    drop_deletes: DropDeletes,
    batch_rows: usize,
) -> Vec<(i64, i64, i8)> {
    let merge = Merge::new(
        layout,
        runs(layout, input, batch_rows),
        MergeSettings { batch_rows: 4, drop_deletes, ..MergeSettings::default() },
    )
    .unwrap();
    let mut out = Vec::new();
    for batch in merge {
        let batch = batch.unwrap();
        assert!(batch.len() <= 4);
        for row in 0..batch.len() {
            let key = key_of(row_at(&batch.values, &[0], row).remove(0));
            let number = batch.sequence.value(row);
            assert_eq!(
                row_at(&batch.values, &[2], row),
                [Value::String(format!("v{number}"))],
                "columns stay together"
            );
            out.push((key, number, batch.kind.value(row)));
        }
    }
    out
}

#[test]
fn the_newest_version_of_a_key_wins() {
    let l = layout("BIGINT", &[]);
    let newer = vec![(1, 10, INSERT, None), (3, 11, INSERT, None)];
    let older = vec![(1, 1, INSERT, None), (2, 2, INSERT, None), (3, 3, INSERT, None)];
    let want = vec![(1, 10, INSERT), (2, 2, INSERT), (3, 11, INSERT)];
    assert_eq!(merged(&l, &[newer.clone(), older.clone()], DropDeletes::All, 2), want);
    assert_eq!(merged(&l, &[older, newer], DropDeletes::All, 2), want, "whatever the order of the runs");
}

#[test]
fn deletes_are_kept_dropped_or_dropped_below_a_line() {
    let l = layout("BIGINT", &[]);
    let newer = vec![(1, 10, DELETE, None), (2, 20, DELETE, None)];
    let older = vec![(1, 1, INSERT, None), (2, 2, INSERT, None)];
    let input = [newer, older];
    assert_eq!(merged(&l, &input, DropDeletes::Keep, 8), [(1, 10, DELETE), (2, 20, DELETE)]);
    assert_eq!(merged(&l, &input, DropDeletes::All, 8), []);
    assert_eq!(merged(&l, &input, DropDeletes::Below(SequenceNumber(20)), 8), [(2, 20, DELETE)]);
    let mut merge = Merge::new(
        &l,
        runs(&l, &input, 8),
        MergeSettings { drop_deletes: DropDeletes::Below(SequenceNumber(20)), ..MergeSettings::default() },
    )
    .unwrap();
    assert_eq!(merge.by_ref().count(), 1);
    assert_eq!(merge.dropped_deletes(), Some(SequenceNumber(10)));
}

#[test]
fn the_largest_of_the_dropped_deletes_is_reported_whatever_their_order() {
    let l = layout("BIGINT", &[]);
    for sequences in [[30, 10, 20], [10, 20, 30], [20, 30, 10]] {
        let deletes = sequences.iter().zip(1..).map(|(sequence, key)| (key, *sequence, DELETE, None)).collect();
        let settings =
            MergeSettings { drop_deletes: DropDeletes::Below(SequenceNumber(31)), ..MergeSettings::default() };
        let mut merge = Merge::new(&l, runs(&l, &[deletes], 8), settings).unwrap();
        assert_eq!(merge.by_ref().count(), 0);
        assert_eq!(merge.dropped_deletes(), Some(SequenceNumber(30)), "{sequences:?}");
    }
}

#[test]
fn a_delete_with_a_smaller_sequence_field_loses() {
    let l = layout("BIGINT", &[("sequence.field", "s")]);
    let newer = vec![(1, 10, DELETE, Some(5))];
    let older = vec![(1, 1, INSERT, Some(9))];
    assert_eq!(merged(&l, &[newer, older], DropDeletes::All, 8), [(1, 1, INSERT)]);
}

#[test]
fn with_ignore_delete_a_stored_delete_hides_nothing_and_goes() {
    let input = [
        vec![(1, 10, DELETE, None), (2, 11, UPDATE_BEFORE, None), (3, 12, DELETE, None)],
        vec![(1, 1, INSERT, None), (2, 2, UPDATE_AFTER, None)],
    ];
    for option in ["ignore-delete", "deduplicate.ignore-delete"] {
        let l = layout("BIGINT", &[(option, "true")]);
        for drop_deletes in [DropDeletes::Keep, DropDeletes::All] {
            assert_eq!(merged(&l, &input, drop_deletes, 8), [(1, 1, INSERT), (2, 2, UPDATE_AFTER)], "{option}");
        }
        let mut merge = Merge::new(&l, runs(&l, &input, 8), MergeSettings::default()).unwrap();
        assert_eq!(merge.by_ref().count(), 1);
        assert_eq!(merge.dropped_deletes(), None, "nobody needs to wait for readers of what never counted");
    }
    assert_eq!(merged(&layout("BIGINT", &[("ignore-delete", "false")]), &input, DropDeletes::All, 8), []);
}

#[test]
fn a_null_sequence_field_loses_in_both_directions() {
    for order in ["ascending", "descending"] {
        let l = layout("BIGINT", &[("sequence.field", "s"), ("sequence.field.sort-order", order)]);
        let input = [vec![(1, 10, INSERT, None)], vec![(1, 1, INSERT, Some(9))]];
        assert_eq!(merged(&l, &input, DropDeletes::All, 8), [(1, 1, INSERT)], "{order}");
    }
    let l = layout("BIGINT", &[("sequence.field", "s"), ("sequence.field.sort-order", "descending")]);
    let input = [vec![(1, 10, INSERT, Some(9))], vec![(1, 1, INSERT, Some(2))]];
    assert_eq!(merged(&l, &input, DropDeletes::All, 8), [(1, 1, INSERT)], "the smaller value wins");
}

#[test]
fn an_update_that_only_has_its_old_side_leaves_nothing() {
    let l = layout("BIGINT", &[]);
    let input = [vec![(1, 10, UPDATE_BEFORE, None)], vec![(1, 1, INSERT, None), (2, 2, INSERT, None)]];
    assert_eq!(merged(&l, &input, DropDeletes::Keep, 8), [(2, 2, INSERT)]);
}

#[test]
fn the_largest_key_is_merged_as_any_other() {
    let l = layout("BIGINT", &[]);
    let input = [
        vec![(i64::MAX, 10, INSERT, None)],
        vec![(i64::MIN, 1, INSERT, None)],
        vec![(i64::MAX, 2, INSERT, None)],
        vec![],
    ];
    assert_eq!(merged(&l, &input, DropDeletes::Keep, 8), [(i64::MIN, 1, INSERT), (i64::MAX, 10, INSERT)]);
}

#[test]
fn output_batches_end_at_the_bytes_given_with_one_row_at_the_least() {
    let l = layout("BIGINT", &[]);
    let rows: Vec<Row> = (0..100).map(|k| (k, 100 + k, INSERT, Some(1))).collect();
    let whole = batch(&l, &rows);
    let bytes: usize = whole.values.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap()).sum();
    let lengths = |batch_bytes| {
        let settings = MergeSettings { batch_bytes, ..MergeSettings::default() };
        let merge = Merge::new(&l, runs(&l, std::slice::from_ref(&rows), 100), settings).unwrap();
        merge.map(|batch| batch.unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(lengths(1), [1; 100]);
    assert_eq!(lengths(bytes / 100 * 10), [10; 10]);
    assert_eq!(lengths(usize::MAX), [100]);
}

#[test]
fn on_equal_numbers_adds_come_after_retracts() {
    let l = layout("BIGINT", &[]);
    let input = [vec![(1, 7, DELETE, None)], vec![(1, 7, UPDATE_AFTER, None)]];
    assert_eq!(merged(&l, &input, DropDeletes::Keep, 8), [(1, 7, UPDATE_AFTER)]);
}

#[test]
fn a_failed_run_ends_the_merge_with_its_error() {
    let l = layout("BIGINT", &[]);
    let bad: RunBatches<'_> = Box::new(std::iter::once(Err(LsmError::Rows("broken".into()))));
    let mut merge = Merge::new(&l, vec![bad], MergeSettings::default()).unwrap();
    assert!(merge.next().unwrap().is_err());
    assert!(merge.next().is_none());
}

#[derive(Debug, Clone)]
struct Case {
    runs: Vec<Vec<Row>>,
    text_key: bool,
    order: bool,
    batch_rows: usize,
    line: Option<i64>,
}

prop_compose! {
    fn case()(
        keys in prop::collection::vec(prop::collection::btree_map(0i64..40, (0u8..4, prop::option::of(0i32..5)), 0..30), 0..7),
        text_key in any::<bool>(), order in any::<bool>(), batch_rows in 1usize..9, line in prop::option::of(0i64..200),
    ) -> Case {
        // Numbers are unique over all runs, and jumbled inside one, as in a bucket's real files.
        let mut number = 0;
        let runs = keys.into_iter().rev().map(|run| {
            let mut rows: Vec<Row> = run.into_iter().map(|(k, (kind, s))| {
                number += 1;
                (k, (number * 7919) % 1009, if kind == 1 { DELETE } else { kind as i8 }, s)
            }).collect();
            rows.sort_by_key(|r| r.0);
            rows
        }).collect();
        Case { runs, text_key, order, batch_rows, line }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn merge_equals_the_oracle(case in case()) {
        let options: &[(&str, &str)] = if case.order { &[("sequence.field", "s")] } else { &[] };
        let l = layout(if case.text_key { "STRING" } else { "BIGINT" }, options);
        let mut oracle: BTreeMap<i64, Row> = BTreeMap::new();
        let age = |r: &Row| (if case.order { r.3 } else { None }, r.1);
        for row in case.runs.iter().flatten() {
            let best = oracle.entry(row.0).or_insert(*row);
            if age(row) > age(best) { *best = *row; }
        }
        let line = case.line.unwrap_or(0);
        let want: Vec<_> = oracle.values().filter(|r| !(r.2 == DELETE && r.1 < line)).map(|r| (r.0, r.1, r.2)).collect();
        let got = merged(&l, &case.runs, DropDeletes::Below(SequenceNumber(line)), case.batch_rows);
        prop_assert_eq!(got, want);
    }
}
