//! What a commit writes does not grow with the table.

use super::*;

/// Files of one commit while the table is filled.
const AT_ONCE: u64 = 250_000;
/// Commits before those that are measured: what filling has left to merge is merged.
const WARM: u64 = 60;
/// Commits that are measured: several rounds of merging manifests.
const COMMITS: u64 = 240;

/// Bytes that a commit of one file writes on average, besides the file, in a table of so many.
fn bytes_per_commit(live: u64) -> f64 {
    let (context, mut world) = table();
    world.watched = false;
    let one = fixture::data_file(&mut world, &context, None, 0, 0, &fixture::stream(7, 0, 3, ZERO, 1));
    let mut position = 0;
    let mut add = |world: &mut World, files: u64| {
        let entries = (position..position + files).map(|number| {
            world.now_ms += 1;
            let mut entry = one.clone();
            entry.file.file_name = format!("data-{}-0.parquet", world.uuid());
            let first = one.file.min_sequence_number.0 + i64::try_from(number).unwrap() * (1 << 24);
            entry.file.min_sequence_number = SequenceNumber(first);
            entry.file.max_sequence_number = crate::sequence::padded(SequenceNumber(first));
            entry
        });
        let entries = entries.collect();
        let from = (position > 0).then_some(position);
        position += files;
        let change = fixture::append(7, from, position, entries, world.now_ms);
        match world.ok(commit(&context, change)) {
            Outcome::Committed { already: false, .. } => {}
            other => panic!("{other:?}"),
        }
    };
    let mut left = live;
    while left > 0 {
        add(&mut world, left.min(AT_ONCE));
        left = left.saturating_sub(AT_ONCE);
    }
    (0..WARM).for_each(|_| add(&mut world, 1));
    let before = world.put_bytes;
    (0..COMMITS).for_each(|_| add(&mut world, 1));
    (world.put_bytes - before) as f64 / COMMITS as f64
}

#[test]
fn commit_writes_as_many_bytes_into_a_table_of_a_million_files_as_into_one_of_a_thousand() {
    let bytes: Vec<f64> = [1_000, 10_000, 1_000_000].map(bytes_per_commit).into();
    let (least, most) = bytes.iter().fold((f64::MAX, 0.0_f64), |(l, m), b| (l.min(*b), m.max(*b)));
    println!("{bytes:?}");
    assert!(most <= least * 1.2, "{bytes:?}");
}
