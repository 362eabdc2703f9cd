//! What each honoured option of a table does, shown on the files, snapshots and reports that come of it.
//!
//! Neighbour: the list of options in `format::options`, whose rows name these tests; a test there checks that each of them exists and
//! sets its option. So a table with the option is always beside one without it, or beside what it would be without it.
#![allow(clippy::single_range_in_vec_init, reason = "one batch of so many ids is meant")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parquet::{
    basic::Compression,
    file::reader::{FileReader, SerializedFileReader},
};
use serde_json::json;
use siltstone_commit::{manifests::Scope, protocol};
use siltstone_format::{
    binary_row::decode_row,
    manifest::{ManifestEntry, decode_manifest_list},
    value::Value,
};
use siltstone_lsm::picker::PickReason;
use siltstone_store::{
    memory::{FaultPlan, Faulty},
    object::list_all,
};
use siltstone_table::{
    Ports,
    compact::{CompactReport, CompactRequest, Compacted},
    driver::drive,
    ingest::IngestReport,
    maintain, state,
};
use world::*;

type Options<'o> = &'o [(&'o str, &'o str)];

/// A table with one bucket.
async fn one_bucket(options: Options<'_>) -> World {
    world(false, &[&[("bucket", "1")], options].concat()).await
}

/// One bucket with a batch, and so a level-0 file, for each range of ids.
async fn with_batches(options: Options<'_>, batches: &[std::ops::Range<i64>]) -> World {
    let world = one_bucket(options).await;
    for (n, ids) in batches.iter().enumerate() {
        ingest(&world, 1 + 10_000 * n as u64, ids.clone()).await;
    }
    world
}

async fn ingest(world: &World, first: u64, ids: std::ops::Range<i64>) -> IngestReport {
    let rows: Vec<_> = ids.map(|id| row(id, &format!("{:020}", id.wrapping_mul(7_046_029_254_386_353_131)))).collect();
    world.ingest().handle(&batch(first, &rows), FAR).await.unwrap()
}

async fn live(world: &World) -> Vec<ManifestEntry> {
    let table = world.open().await;
    let snapshot = table.current().await.unwrap().unwrap();
    state::live_files(&table, &snapshot, Scope::Everything).await.unwrap()
}

async fn buckets(world: &World) -> BTreeSet<i32> {
    live(world).await.iter().map(|entry| entry.bucket.0).collect()
}

/// Keys of all Parquet files below the table.
async fn files(world: &World) -> Vec<String> {
    let all = list_all(&*world.ports.objects, &world.at.location()).await.unwrap();
    all.into_iter().map(|meta| meta.key).filter(|key| key.ends_with(".parquet")).collect()
}

async fn codec(world: &World, key: &str) -> Compression {
    let bytes = world.ports.objects.get(key).await.unwrap().bytes;
    SerializedFileReader::new(bytes).unwrap().metadata().row_group(0).column(0).compression()
}

/// The codecs of all files, without their levels.
async fn codecs(world: &World) -> Vec<String> {
    let mut codecs = Vec::new();
    for key in files(world).await {
        codecs.push(codec(world, &key).await.to_string().split('(').next().unwrap().to_owned());
    }
    codecs.sort();
    codecs
}

/// What the picker does with the table's only bucket.
async fn picked(world: &World) -> Option<Box<CompactReport>> {
    match world.compact_all(CompactRequest::Picked).await.remove(0) {
        Compacted::Done(report) => Some(report),
        Compacted::Nothing => None,
        Compacted::Conflict(words) => panic!("{words}"),
    }
}

async fn reason(options: Options<'_>, batches: &[std::ops::Range<i64>]) -> Option<PickReason> {
    picked(&with_batches(options, batches).await).await.map(|report| report.reason)
}

async fn full(world: &World) -> Box<CompactReport> {
    match world.compact_all(CompactRequest::Full).await.remove(0) {
        Compacted::Done(report) => report,
        other => panic!("{other:?}"),
    }
}

const ONE_EACH: [std::ops::Range<i64>; 2] = [1..2, 1..2];

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_as_many_and_as_chosen_as_the_options_say() {
    let spread = world(false, &[("bucket", "7")]).await;
    ingest(&spread, 1, 0..60).await;
    assert!(live(&spread).await.iter().all(|entry| entry.total_buckets == 7 && (0..7).contains(&entry.bucket.0)));
    assert_eq!(buckets(&spread).await.len(), 7);

    let by_remainder = world(false, &[("bucket", "7"), ("bucket-function.type", "mod")]).await;
    ingest(&by_remainder, 1, 12..13).await;
    assert_eq!(buckets(&by_remainder).await, [5].into());

    for (key, expected) in [(Some("dt"), 1), (None, 7)] {
        let mut table = new_table(false, &[("bucket", "7")]);
        table.primary_keys = vec!["dt".to_owned(), "id".to_owned()];
        table.options.extend(key.map(|key| ("bucket-key".to_owned(), key.to_owned())));
        let world = world_with(&table, 7).await;
        ingest(&world, 1, 0..60).await;
        assert_eq!(buckets(&world).await.len(), expected, "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sequence_field_decides_which_row_of_a_key_stays() {
    let older_by_note: (&str, Options<'_>) = ("z", &[("sequence.field", "note")]);
    let descending: Options<'_> = &[("sequence.field", "note"), ("sequence.field.sort-order", "descending")];
    for (stays, options) in [("a", &[] as Options<'_>), older_by_note, ("a", descending)] {
        let world = one_bucket(options).await;
        for (n, note) in ["z", "m", "a"].into_iter().enumerate() {
            world.ingest().handle(&batch(1 + n as u64, &[row(1, note)]), FAR).await.unwrap();
        }
        assert_eq!(world.rows(None).await, [(1, stays.to_owned())], "{options:?}");
        full(&world).await;
        assert_eq!(world.rows(None).await, [(1, stays.to_owned())], "{options:?}, compacted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retracts_are_taken_from_a_column_and_left_out_as_the_options_say() {
    let told = |kind: &str| json!({"id": 1, "note": "a", "dt": kind});
    for (option, retract, rows) in [
        ("", "-D", 0),
        ("", "-U", 0),
        ("ignore-delete", "-D", 1),
        ("ignore-delete", "-U", 1),
        ("deduplicate.ignore-delete", "-D", 1),
        ("ignore-update-before", "-D", 0),
        ("ignore-update-before", "-U", 1),
    ] {
        let options = [("rowkind.field", "dt"), (option, "true")];
        let world = one_bucket(&options[..if option.is_empty() { 1 } else { 2 }]).await;
        world.ingest().handle(&batch(1, &[told("+I"), told(retract)]), FAR).await.unwrap();
        assert_eq!(world.rows(None).await.len(), rows, "{option}, {retract}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_compressed_as_the_options_say() {
    assert_eq!(codecs(&with_batches(&[], &[1..9]).await).await, ["ZSTD"]);
    assert_eq!(codecs(&with_batches(&[("file.compression", "none")], &[1..9]).await).await, ["UNCOMPRESSED"]);

    let levels = with_batches(&[("file.compression.per.level", "0:snappy,5:gzip")], &ONE_EACH).await;
    full(&levels).await;
    assert_eq!(codecs(&levels).await, ["GZIP", "SNAPPY", "SNAPPY"]);

    let changelog = [("changelog-producer", "input"), ("changelog-file.compression", "lz4")];
    assert_eq!(codecs(&with_batches(&changelog, &[1..9]).await).await, ["LZ4_RAW", "ZSTD"]);

    let mut sizes = Vec::new();
    for level in ["1", "19"] {
        sizes.push(
            live(&with_batches(&[("file.compression.zstd-level", level)], &[1..4_000]).await).await[0].file.file_size,
        );
    }
    assert_ne!(sizes[0], sizes[1], "another level, another size");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_named_and_placed_as_the_options_say() {
    let options = [
        ("data-file.prefix", "d-"),
        ("changelog-file.prefix", "c-"),
        ("data-file.path-directory", "below"),
        ("file.suffix.include.compression", "true"),
        ("file.compression.per.level", "5:snappy"),
        ("changelog-producer", "input"),
    ];
    let world = with_batches(&options, &ONE_EACH).await;
    full(&world).await;
    let names = files(&world).await;
    let of = |prefix: &str| {
        let start = format!("wh/demo.db/orders/below/bucket-0/{prefix}");
        names.iter().filter(|name| name.starts_with(&start) && name.ends_with(".zstd.parquet")).count()
    };
    assert_eq!((names.len(), of("d-"), of("c-")), (5, 3, 2), "{names:?}");
    assert_eq!(world.rows(None).await.len(), 1);

    let plain = with_batches(&[("changelog-producer", "input")], &ONE_EACH).await;
    let names = files(&plain).await;
    let of = |prefix: &str| names.iter().filter(|name| name.contains(&format!("/orders/bucket-0/{prefix}-"))).count();
    assert_eq!((names.len(), of("data"), of("changelog")), (4, 2, 2), "{names:?}");
    assert!(names.iter().all(|name| !name.contains("zstd")));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_named_as_the_options_say() {
    for (options, day, none) in [
        (&[] as Options<'_>, "dt=19675", "dt=__DEFAULT_PARTITION__"),
        (&[("partition.legacy-name", "false")], "dt=2023-11-14", "dt=__DEFAULT_PARTITION__"),
        (&[("partition.default-name", "nil")], "dt=19675", "dt=nil"),
    ] {
        let mut dated = new_table(true, options);
        dated.columns[2].1 = "DATE".to_owned();
        let dated = world_with(&dated, 7).await;
        ingest(&dated, 1, 1..2).await;
        let names = files(&dated).await;
        assert!(names[0].contains(&format!("/{day}/")), "{names:?}");

        let blank = world(true, options).await;
        blank.ingest().handle(&batch(1, &[json!({"id": 1, "note": "a", "dt": ""})]), FAR).await.unwrap();
        let names = files(&blank).await;
        assert!(names[0].contains(&format!("/{none}/")), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_cuts_its_files_at_the_target() {
    for (options, batches, rows) in [
        (&[] as Options<'_>, [1..13, 5..21], vec![20]),
        (&[("target-file-row-num", "8")], [1..13, 5..21], vec![8, 8, 4]),
        (&[("target-file-row-num", "10")], [1..13, 5..21], vec![10, 10]),
    ] {
        let world = with_batches(options, &batches).await;
        let report = full(&world).await;
        let live = live(&world).await;
        assert_eq!(live.iter().map(|entry| entry.file.row_count).collect::<Vec<_>>(), rows);
        assert_eq!((report.rows_out, world.rows(None).await.len()), (20, 20));
    }
    let large = [1..9_000, 1..9_000];
    assert_eq!(full(&with_batches(&[], &large).await).await.files_out, 1);
    assert!(full(&with_batches(&[("target-file-size", "1 kb")], &large).await).await.files_out > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_and_runs_are_as_many_as_the_options_say() {
    assert_eq!(full(&with_batches(&[], &ONE_EACH).await).await.output_level.0, 5);
    assert_eq!(full(&with_batches(&[("num-levels", "3")], &ONE_EACH).await).await.output_level.0, 2);
    assert_eq!(reason(&[], &ONE_EACH).await, None);
    assert!(reason(&[("num-sorted-run.compaction-trigger", "2")], &ONE_EACH).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_decide_what_is_picked_as_the_options_say() {
    const TWO: (&str, &str) = ("num-sorted-run.compaction-trigger", "2");
    assert_eq!(reason(&[TWO], &ONE_EACH).await, Some(PickReason::SizeRatio));
    let amplified = [TWO, ("compaction.max-size-amplification-percent", "50")];
    assert_eq!(reason(&amplified, &ONE_EACH).await, Some(PickReason::SizeAmplification));

    // The older run is larger than the newer one, but less than twice.
    let larger = [1..41, 1..2];
    let sizes: Vec<i64> = live(&with_batches(&[TWO], &larger).await).await.iter().map(|e| e.file.file_size).collect();
    let (small, large) = (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap());
    assert!(large * 100 > small * 110 && large < small * 2, "{sizes:?}");
    assert_eq!(reason(&[TWO], &larger).await, None);
    assert_eq!(reason(&[TWO, ("compaction.size-ratio", "100")], &larger).await, Some(PickReason::SizeRatio));

    // The world's clock stands at 22:13.
    for (start, end, picked) in [("22", "23", Some(PickReason::SizeRatio)), ("1", "5", None)] {
        let off_peak = [
            TWO,
            ("compaction.offpeak.start.hour", start),
            ("compaction.offpeak.end.hour", end),
            ("compaction.offpeak-ratio", "100"),
        ];
        assert_eq!(reason(&off_peak, &larger).await, picked, "from {start} to {end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_full_compaction_is_picked_as_the_options_say() {
    for option in [
        ("compaction.optimization-interval", "1 h"),
        ("compaction.total-size-threshold", "1 gb"),
        ("compaction.incremental-size-threshold", "1 b"),
    ] {
        assert_eq!(reason(&[option], &ONE_EACH).await, Some(PickReason::EarlyFull), "{option:?}");
    }
    for option in [("compaction.total-size-threshold", "1 b"), ("compaction.incremental-size-threshold", "1 gb")] {
        assert_eq!(reason(&[option], &ONE_EACH).await, None, "{option:?}");
    }
    let hourly = with_batches(&[("compaction.optimization-interval", "1 h")], &ONE_EACH).await;
    assert!(picked(&hourly).await.is_some());
    ingest(&hourly, 50_000, 1..2).await;
    assert!(picked(&hourly).await.is_none(), "one was made just now");
    hourly.clock.advance(Duration::from_secs(3_600));
    assert!(picked(&hourly).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn level_0_is_lifted_where_an_option_says_so() {
    assert_eq!(reason(&[], &[1..2]).await, None);
    assert_eq!(reason(&[("compaction.force-up-level-0", "true")], &[1..2]).await, Some(PickReason::ForceLevel0));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_moved_or_written_again_as_the_options_say() {
    let apart = [1..9, 10..19];
    let small = ("compaction.small-file-ratio", "0");
    for (options, files_in, upgraded, files_out) in [
        (&[] as Options<'_>, 2, 0, 1),
        (&[small], 0, 2, 0),
        (&[small, ("compaction.force-rewrite-all-files", "true")], 2, 0, 2),
    ] {
        let report = full(&with_batches(options, &apart).await).await;
        assert_eq!(
            (report.files_in, report.upgraded, report.files_out),
            (files_in, upgraded, files_out),
            "{options:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_only_table_asks_for_no_compaction_and_expires_nothing() {
    let due = [("num-sorted-run.compaction-trigger", "2"), ("snapshot.num-retained.min", "1")];
    for (write_only, tasks, expired) in [("false", 1, 1), ("true", 0, 0)] {
        let world = one_bucket(&[&due[..], &[("write-only", write_only)]].concat()).await;
        let first = ingest(&world, 1, 1..2).await;
        let second = ingest(&world, 2, 1..2).await;
        assert_eq!((first.tasks, second.tasks), (0, tasks));
        world.clock.advance(Duration::from_secs(7_200));
        let request = maintain::MaintainRequest { sweep_now: false, dry_run: true, deadline_ms: FAR };
        let report = maintain::run(&world.open().await, None, &request).await;
        assert_eq!((report.tasks, report.expired, report.failures), (tasks, expired, vec![]));
    }
}

/// Columns that have statistics (`None`: all have a place), minima, and numbers of nulls.
async fn stats(world: &World) -> (Option<Vec<String>>, Vec<Value>, Vec<Option<i64>>) {
    let (table, entry) = (world.open().await, live(world).await.remove(0));
    let names = entry.file.value_stats_cols;
    let has = |name: &str| names.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
    let fields = table.schema.fields.iter().filter(|field| has(&field.name));
    let types: Vec<_> = fields.map(|field| field.data_type.clone()).collect();
    let stats = entry.file.value_stats;
    (names, decode_row("statistics", &stats.min, &types).unwrap(), stats.null_counts)
}

fn names(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_kept_as_the_options_say() {
    let text = |text: &str| Value::String(text.to_owned());
    let of = async |options: Options<'_>| {
        let world = one_bucket(options).await;
        world.ingest().handle(&batch(1, &[row(1, "a note of more than 16")]), FAR).await.unwrap();
        world
    };
    let (id, day) = (Value::BigInt(1), text("2023-11-14"));
    let counted = vec![Some(0); 3];
    let by_default = (None, vec![id.clone(), text("a note of more t"), day.clone()], counted.clone());
    assert_eq!(stats(&of(&[]).await).await, by_default);
    let mode = async |mode| stats(&of(&[("metadata.stats-mode", mode)]).await).await;
    assert_eq!(mode("none").await, (names(&[]), vec![], vec![]));
    assert_eq!(mode("counts").await, (None, vec![Value::Null; 3], counted.clone()));
    assert_eq!(mode("truncate(3)").await.1, [id.clone(), text("a n"), text("202")]);
    assert_eq!(mode("full").await.1, [id.clone(), text("a note of more than 16"), day.clone()]);

    let unlike = of(&[("metadata.stats-mode.per.level", "0:none")]).await;
    assert_eq!(stats(&unlike).await.0, names(&[]));
    world_moves_up(&unlike).await;
    assert_eq!(stats(&unlike).await.0, None);

    let without_note = ("fields.note.stats-mode", "none");
    assert_eq!(
        stats(&of(&[without_note]).await).await,
        (names(&["id", "dt"]), vec![id.clone(), day.clone()], vec![Some(0); 2])
    );
    let sparse = of(&[without_note, ("metadata.stats-dense-store", "false")]).await;
    assert_eq!(stats(&sparse).await, (None, vec![id.clone(), Value::Null, day], vec![Some(0), None, Some(0)]));
    assert_eq!(
        stats(&of(&[("metadata.stats-keep-first-n-columns", "1")]).await).await,
        (names(&["id"]), vec![id], vec![Some(0)])
    );
}

/// A second batch and a full compaction: what was at level 0 is written again.
async fn world_moves_up(world: &World) {
    ingest(world, 50, 1..3).await;
    full(world).await;
}

/// Manifests of the base list after so many commits, and how the last one is compressed.
async fn base_manifests(options: Options<'_>, commits: u64) -> (usize, String) {
    let world = one_bucket(options).await;
    for n in 0..commits {
        ingest(&world, 1 + n, 1..2).await;
    }
    let table = world.open().await;
    let snapshot = table.current().await.unwrap().unwrap();
    let list = table.location.manifest(&snapshot.base_manifest_list);
    let metas = decode_manifest_list(&list, &world.ports.objects.get(&list).await.unwrap().bytes).unwrap();
    let manifest = world.ports.objects.get(&table.location.manifest(&metas[0].file_name)).await.unwrap().bytes;
    let head = String::from_utf8_lossy(&manifest[..4_000.min(manifest.len())]).into_owned();
    let (_, codec) = head.split_once("avro.codec").unwrap();
    (metas.len(), codec.chars().skip(1).take_while(char::is_ascii_lowercase).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_merged_and_compressed_as_the_options_say() {
    assert_eq!(base_manifests(&[], 6).await, (5, "zstandard".to_owned()));
    assert_eq!(base_manifests(&[("manifest.compression", "none")], 6).await.1, "null");
    let merged = ("manifest.merge-min-count", "3");
    assert_eq!(base_manifests(&[merged], 6).await.0, 1);
    assert_eq!(base_manifests(&[merged, ("manifest.target-file-size", "1 b")], 6).await.0, 5, "each is large enough");
    assert_eq!(base_manifests(&[("manifest.full-compaction-threshold-size", "1 b")], 6).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_pointer_gives_up_after_as_many_lost_races_as_the_options_say() {
    for (retries, well) in [("0", false), ("1", true)] {
        let world = one_bucket(&[("commit.max-retries", retries)]).await;
        let (other, rows) = (world.ingest(), batch(1, &[row(2, "b")]));
        // A batch moves the pointer just before the owner pauses the table. (A batch that loses a race is staged instead.)
        let race = FaultPlan::none().act_before("put_item", "/pointer", 1, move || async move {
            other.handle(&rows, FAR).await.unwrap();
        });
        let ports = Ports {
            objects: Arc::new(Faulty::new(world.ports.objects.clone(), race.clone())),
            items: Arc::new(Faulty::new(world.ports.items.clone(), race)),
            ..world.ports.clone()
        };
        let pause = protocol::set_paused(&world.open().await.context, true);
        let outcome = drive(pause, &ports, &world.at).await;
        assert_eq!(outcome.is_ok(), well, "{outcome:?}");
        assert_eq!(world.rows(None).await.len(), 1);
        if let Err(error) = outcome {
            assert!(error.to_string().contains("1 lost race"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_expire_as_the_options_say() {
    const ONE: (&str, &str) = ("snapshot.num-retained.min", "1");
    for (options, expired) in [
        (&[] as Options<'_>, 0),
        (&[ONE], 5),
        (&[("snapshot.num-retained.min", "4")], 2),
        (&[ONE, ("snapshot.time-retained", "3 h")], 0),
        (&[ONE, ("snapshot.time-retained", "3 h"), ("snapshot.num-retained.max", "4")], 2),
        (&[ONE, ("snapshot.expire.limit", "3")], 3),
    ] {
        let world = one_bucket(options).await;
        for n in 0..6 {
            ingest(&world, 1 + n, 1..2).await;
        }
        world.clock.advance(Duration::from_secs(7_200));
        assert_eq!(maintain::expire(&world.open().await).await.unwrap().snapshots.len(), expired, "{options:?}");
    }
}
