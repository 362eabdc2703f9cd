//! Measures one compaction of one bucket on this machine: overlapping level-0 runs of orders in, one level-5 run out.
//!
//! Run: `cargo run --release -p siltstone-lsm --example compaction -- generate DIR 8 1000000`, then `... -- compact DIR [check]`.
//! Two processes, so that the peak memory shown is the compaction's alone. `check` compares the result with a map of newest versions.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measuring program reads files and the clock, and fails by panicking"
)]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMillisecondArray,
};
use siltstone_format::{
    compare::KeyComparator,
    data_file::{DataFileMeta, FileSource},
    id::{Level, SequenceNumber},
    schema::{Column, TableSchema},
    types::DataType,
};
use siltstone_lsm::{
    batch::KeyValueBatch,
    compact::{CompactStep, CompactionJob},
    layout::FileLayout,
    merge::{DropDeletes, MergeSettings, RunBatches},
    reader,
    section::sections,
    writer::{RunWriter, WriterSettings},
};

const KEY_SPACE: i64 = 4_000_000;

fn schema() -> TableSchema {
    let columns = [
        ("order_id", "BIGINT NOT NULL"),
        ("customer", "STRING"),
        ("status", "STRING"),
        ("amount", "DECIMAL(12, 2)"),
        ("quantity", "INT"),
        ("price", "DOUBLE"),
        ("created", "TIMESTAMP(3)"),
        ("updated", "TIMESTAMP(3)"),
        ("note", "STRING"),
        ("gift", "BOOLEAN"),
    ];
    let columns = columns.map(|(name, t)| Column::new(name, DataType::parse(t).unwrap())).to_vec();
    TableSchema::create(columns, vec![], vec!["order_id".into()], Default::default(), None, 0).unwrap()
}

/// SplitMix64: the data is a pure function of run and row.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

fn batch(layout: &FileLayout, keys: &[i64], run: i64, random: &mut Random) -> KeyValueBatch {
    const WORDS: [&str; 12] = [
        "ship", "hold", "gift", "fragile", "express", "invoice", "partial", "return", "north", "south", "dock",
        "pallet",
    ];
    const STATUS: [&str; 5] = ["open", "paid", "packed", "shipped", "returned"];
    let mut draw = |below: u64| keys.iter().map(|_| random.next(below)).collect::<Vec<_>>();
    let word = |i: u64| WORDS[i as usize];
    let (a, b, c) = (draw(12), draw(12), draw(1 << 40));
    let note: StringArray = (0..keys.len()).map(|i| Some(format!("{} {} {}", word(a[i]), word(b[i]), c[i]))).collect();
    let cents: Vec<i128> = draw(9_999_900).into_iter().map(|c| i128::from(c) + 100).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys.to_vec())),
        Arc::new(keys.iter().map(|k| Some(format!("customer-{}", k % 500_000))).collect::<StringArray>()),
        Arc::new(draw(5).iter().map(|&i| Some(STATUS[i as usize])).collect::<StringArray>()),
        Arc::new(Decimal128Array::from(cents).with_precision_and_scale(12, 2).unwrap()),
        Arc::new(draw(99).iter().map(|&q| q as i32 + 1).collect::<Int32Array>()),
        Arc::new(draw(100_000).iter().map(|&p| p as f64 / 100.0).collect::<Float64Array>()),
        Arc::new(TimestampMillisecondArray::from_iter_values(keys.iter().map(|k| 1_700_000_000_000 + k * 250))),
        Arc::new(TimestampMillisecondArray::from_iter_values(
            draw(60_000).iter().map(|&t| 1_760_000_000_000 + run * 60_000 + t as i64),
        )),
        Arc::new(note),
        Arc::new(draw(10).iter().map(|&g| Some(g == 0)).collect::<BooleanArray>()),
    ];
    let sequence: Int64Array = keys.iter().map(|k| run * KEY_SPACE + (k * 7_919) % KEY_SPACE).collect();
    KeyValueBatch::new(
        RecordBatch::try_new(layout.values().clone(), columns).unwrap(),
        sequence,
        Int8Array::from(vec![0; keys.len()]),
    )
    .unwrap()
}

fn generate(dir: &Path, runs: i64, rows: i64) {
    std::fs::create_dir_all(dir).unwrap();
    let layout = FileLayout::new(Arc::new(schema())).unwrap();
    let started = Instant::now();
    for run in 0..runs {
        let mut random = Random(run as u64);
        let mut keys: Vec<i64> = (0..KEY_SPACE).filter(|_| random.next(KEY_SPACE as u64) < rows as u64).collect();
        keys.truncate(rows as usize);
        let mut file = File::create(dir.join(format!("data-{run}-0.parquet"))).unwrap();
        let mut writer =
            RunWriter::new(&layout, Arc::new(WriterSettings::defaults(10)), Level(0), FileSource::Append).unwrap();
        for chunk in keys.chunks(8192) {
            writer.write(&batch(&layout, chunk, run, &mut random)).unwrap();
            file.write_all(&writer.take_bytes()).unwrap();
        }
        let (rest, meta) = writer.finish(format!("data-{run}-0.parquet"), 0).unwrap();
        file.write_all(&rest).unwrap();
        assert_eq!(meta.row_count, keys.len() as i64);
    }
    println!("generated {runs} runs in {:.1} s", started.elapsed().as_secs_f64());
}

/// What a manifest would say of the files in `dir`: read once from the files themselves.
fn inputs(dir: &Path, layout: &FileLayout) -> Vec<DataFileMeta> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "parquet") && p.file_name().unwrap() != "out.parquet");
    names.sort();
    let mut writer =
        RunWriter::new(layout, Arc::new(WriterSettings::defaults(10)), Level(0), FileSource::Append).unwrap();
    writer.write(&batch(layout, &[0, KEY_SPACE], 0, &mut Random(0))).unwrap();
    let (_, template) = writer.finish("template.parquet".into(), 0).unwrap();
    names
        .iter()
        .map(|path| {
            let file = File::open(path).unwrap();
            let size = file.metadata().unwrap().len();
            let footer = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
            DataFileMeta {
                file_name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                file_size: size as i64,
                row_count: footer.file_metadata().num_rows(),
                min_sequence_number: SequenceNumber(i64::MIN),
                max_sequence_number: SequenceNumber(i64::MAX),
                ..template.clone()
            }
        })
        .collect()
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn compact(dir: &Path) {
    let schema = schema();
    let layout = FileLayout::new(Arc::new(schema.clone())).unwrap();
    let metas = inputs(dir, &layout);
    let keys = KeyComparator::new(layout.key_types());
    let groups = vec![sections(metas, &|a: &_, b: &_| keys.compare(a, b))];
    let (home, file_layout) = (dir.to_owned(), layout.clone());
    let open = Arc::new(move |meta: &DataFileMeta| {
        let file = File::open(home.join(&meta.file_name)).unwrap();
        reader::open(file, meta, &schema, &file_layout).map(|b| Box::new(b) as RunBatches<'static>)
    });
    let settings = WriterSettings { target_file_bytes: 1 << 30, ..WriterSettings::defaults(10) };
    let merge = MergeSettings { drop_deletes: DropDeletes::All, ..MergeSettings::default() };
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut job = CompactionJob::new(
        &layout,
        Arc::new(settings),
        merge,
        Level(5),
        groups,
        open,
        Box::new(|| ("data-out-0.parquet".to_owned(), 0)),
    );
    let mut out = File::create(dir.join("out.parquet")).unwrap();
    let mut written = 0;
    let stats = loop {
        match job.step().unwrap() {
            CompactStep::Bytes(bytes) => {
                written += bytes.len();
                out.write_all(&bytes).unwrap();
            }
            CompactStep::FileDone(bytes, _) => {
                written += bytes.len();
                out.write_all(&bytes).unwrap();
            }
            CompactStep::Finished(stats) => break stats,
        }
    };
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{{\"rows_in\":{},\"rows_out\":{},\"wall_s\":{wall:.2},\"cpu_s\":{cpu:.2},\"rows_in_per_cpu_s\":{:.0},\"peak_mb\":{},\"bytes_out\":{written}}}",
        stats.rows_in,
        stats.rows_out,
        stats.rows_in as f64 / cpu,
        peak_mb(),
    );
}

fn check(dir: &Path) {
    let mut newest = vec![i64::MIN; KEY_SPACE as usize];
    let mut last = -1;
    let columns = |path: &Path, sink: &mut dyn FnMut(i64, i64)| {
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
        for batch in reader.unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let column =
                |name: &str| batch.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            let (keys, copies, numbers) = (column("_KEY_order_id"), column("order_id"), column("_SEQUENCE_NUMBER"));
            assert_eq!(keys, copies, "both copies of the key are the same");
            (0..keys.len()).for_each(|i| sink(keys.value(i), numbers.value(i)));
        }
    };
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "out.parquet" {
            columns(&path, &mut |k, s| newest[k as usize] = newest[k as usize].max(s));
        }
    }
    let mut rows = 0;
    columns(&dir.join("out.parquet"), &mut |k, s| {
        assert!(k > last && newest[k as usize] == s, "key {k}");
        (last, rows) = (k, rows + 1);
    });
    assert_eq!(rows, newest.iter().filter(|s| **s != i64::MIN).count());
    println!("checked: {rows} keys, ascending, the newest version of each");
}

#[expect(clippy::print_stderr, reason = "usage of a program")]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: i64| args.get(i).map_or(default, |a| a.parse().unwrap());
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("generate"), Some(dir)) => generate(Path::new(dir), number(3, 8), number(4, 1_000_000)),
        (Some("compact"), Some(dir)) => {
            compact(Path::new(dir));
            if args.get(3).is_some_and(|a| a == "check") {
                check(Path::new(dir));
            }
        }
        _ => eprintln!("compaction generate DIR [runs] [rows per run] | compaction compact DIR [check]"),
    }
}
