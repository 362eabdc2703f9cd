//! The command line of `silt`: verbs, options, help with examples.
//!
//! Neighbours: `main` parses it, `commands/*` carry it out. Exit codes: 0 ok, 1 problems found, 2 usage, 3 a service is unavailable.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use siltstone_table::settings::LATENESS_MS;

use crate::failure::Failure;

/// Siltstone: Kinesis change streams into upserted Apache Paimon tables on S3, with nothing always on.
#[derive(Debug, Parser)]
#[command(name = "silt", version, max_term_width = 120, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print machine-readable JSON (one object per line for lists).
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on standard error (-v: progress of steps, -vv: requests).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// What the grammar cannot see: options given before a verb and after it meet only here.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let place = &self.place;
        let given = [("--local", place.local.is_some()), ("--warehouse", place.warehouse.is_some())];
        if given.iter().all(|(_, given)| *given) {
            return Err(Failure::Usage("--local and --warehouse are two places: give one of them".to_owned()));
        }
        let needless = given.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        match (&self.verb, needless) {
            (Verb::Local(_), Some(name)) => Err(Failure::Usage(format!(
                "{name} says where to look, `silt local` makes the place: write `silt local --dir DIR`"
            ))),
            (Verb::Compact(args), _) if place.bucket.as_deref().is_some_and(is_number) => {
                let (number, table) = (place.bucket.as_deref().unwrap_or_default(), &args.table);
                Err(Failure::Usage(format!(
                    "--bucket {number}: this names the bucket on S3; to compact bucket {number} of the table, write \
                     `silt compact {table} --only-bucket {number}`"
                )))
            }
            (Verb::Demo(_), Some(name)) => Err(Failure::Usage(format!(
                "{name}: the demo runs on a stack of its own; `silt demo --keep DIR` keeps it"
            ))),
            _ => Ok(()),
        }
    }
}

/// A number where a bucket of S3 is named. One that is set for all commands may be called so.
fn is_number(bucket: &str) -> bool {
    let set = std::env::var("SILTSTONE_BUCKET").is_ok_and(|set| set == bucket);
    !set && !bucket.is_empty() && bucket.bytes().all(|byte| byte.is_ascii_digit())
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 found problems, 2 wrong usage, 3 a service is unavailable.";

/// Where the tables are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Use the local stack that keeps its state in DIR (started by `silt local --dir DIR`, or opened for this command).
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "warehouse")]
    pub(crate) local: Option<PathBuf>,
    /// A bare Paimon warehouse without pointer: file:///path or s3://bucket/prefix (scan, files, snapshots, compact, check, table list and describe only).
    #[arg(long, global = true, value_name = "URI")]
    pub(crate) warehouse: Option<String>,
    /// Bucket of the warehouse on S3, on AWS (buckets of a table are numbers: `silt compact --only-bucket`).
    #[arg(long, global = true, env = "SILTSTONE_BUCKET", value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Prefix of the warehouse in the bucket.
    #[arg(long, global = true, env = "SILTSTONE_WAREHOUSE", default_value = "warehouse", value_name = "PREFIX")]
    pub(crate) prefix: String,
    /// DynamoDB table of the pointers.
    #[arg(long, global = true, env = "SILTSTONE_ITEMS_TABLE", default_value = "siltstone", value_name = "NAME")]
    pub(crate) items_table: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// One minute of Siltstone on this machine: a change stream, faults, compaction, and a proof that nothing was lost.
    Demo(Demo),
    /// Start S3, DynamoDB, Kinesis and the three functions on loopback and keep them up.
    Local(Local),
    /// Create, describe, list, feed or drop tables.
    #[command(subcommand)]
    Table(Table),
    /// Write records of a file (JSON lines) into a table's stream.
    Produce(Produce),
    /// Read a table: newest version of every row, merged on read.
    Scan(Scan),
    /// List the snapshots of a table.
    #[command(
        after_help = "Examples:\n  silt --local ./state snapshots demo.orders\n  silt snapshots --warehouse file:///data/wh bench.orders --json"
    )]
    Snapshots(Named),
    /// List the live data files of a table, by bucket and level.
    #[command(
        after_help = "Examples:\n  silt --local ./state files demo.orders\n  silt --local ./state files demo.orders --snapshot 3 --json"
    )]
    Files(Files),
    /// Compact buckets of a table now.
    Compact(Compact),
    /// Check a table: pointer, snapshots, manifests, files, checkpoints; with --deep also every row.
    Check(Check),
    /// Remove old snapshots and the files that only they use.
    #[command(
        after_help = "Examples:\n  silt --local ./state expire demo.orders\n  silt --local ./state expire demo.orders --orphans --dry-run\n  silt --bucket lake expire shop.orders --orphans"
    )]
    Expire(Expire),
    /// Make the content of an older snapshot current again, as a new snapshot; stream positions stay.
    #[command(
        after_help = "Examples:\n  silt --local ./state snapshots demo.orders\n  silt --local ./state rollback demo.orders --to 3"
    )]
    Rollback(Rollback),
    /// Bring pointer and snapshots in line again: a lost or outdated pointer, a fork; also puts an existing Paimon table under a pointer.
    Repair(Repair),
    /// Records that could not be decoded or typed.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Stop all commits to a table; its stream keeps the records meanwhile.
    #[command(after_help = "Example:\n  silt --local ./state pause demo.orders")]
    Pause(Named),
    /// Take commits again after `silt pause`.
    #[command(after_help = "Example:\n  silt --local ./state resume demo.orders")]
    Resume(Named),
    /// Wait until all records of the stream are in the table or in quarantine.
    Drain(Drain),
}

#[derive(Debug, Args)]
#[command(after_help = "Stop the producers first: while records come, a stream is never drained for long.\n\n\
                  Example, to move a table in peace:\n  silt --bucket lake drain shop.orders && silt --bucket lake pause shop.orders")]
pub(crate) struct Drain {
    /// db.table
    pub(crate) table: String,
    /// Give up after so many seconds, with exit code 3.
    #[arg(long, default_value_t = 600, value_name = "N")]
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt demo\n  silt demo --seconds 20 --rate 500 --json\n  silt demo --keep ./state   # then: silt --local ./state scan demo.orders --limit 5"
)]
pub(crate) struct Demo {
    /// How long to produce.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub(crate) seconds: u64,
    /// Changes per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub(crate) rate: u64,
    /// Shards of the stream at the start (one is split on the way).
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) shards: u32,
    /// Seed of the produced data.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// Keep the state in DIR for later commands.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt local --dir ./state\n  eval \"$(silt local --dir ./state --exports)\"   # in another shell, while it runs"
)]
pub(crate) struct Local {
    /// Keep the state in DIR; a restart, also after a crash, goes on where it stopped. Without it everything is in memory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// First of the ports on 127.0.0.1 (S3, then DynamoDB, Kinesis, Lambda); 0 lets the system choose.
    #[arg(long, default_value_t = 4566, value_name = "PORT")]
    pub(crate) port: u16,
    /// Run the functions as real `bootstrap` processes behind a Lambda Runtime API instead of in this process.
    #[arg(long)]
    pub(crate) process: bool,
    /// Folder with NAME/bootstrap for each function (as `cargo lambda build` leaves them), for --process.
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    pub(crate) functions: PathBuf,
    /// Print the exports of a running stack in --dir and leave.
    #[arg(long, requires = "dir")]
    pub(crate) exports: bool,
    /// Deliver S3 events twice and out of order now and then.
    #[arg(long)]
    pub(crate) rough_events: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Table {
    /// Create a table and the stream that feeds it.
    Create(Create),
    /// Show a table's schema, options, stream and state.
    #[command(
        after_help = "Examples:\n  silt --local ./state table describe demo.orders\n  silt table describe --warehouse file:///data/wh bench.orders --json"
    )]
    Describe(Named),
    /// List the tables of the warehouse, and whether they take commits; those without a pointer were dropped, or never had one.
    #[command(after_help = "Examples:\n  silt --local ./state table list\n  silt --bucket lake table list --json")]
    List,
    /// Show or change what feeds a table: its stream, and how records become rows.
    Feed(Feed),
    /// Drop a table: its pointer, and all of its objects with --purge.
    #[command(
        after_help = "Without --purge the objects stay where they are, and until they are gone no other table of this name can be created: `silt table \
                      drop --purge` deletes them also later, `silt repair` makes them a table again.\n\n\
                      Examples:\n  silt --local ./state table drop demo.orders --yes           # the files stay\n  silt --local ./state table drop demo.orders --purge --yes"
    )]
    Drop(Drop),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt --local ./state table create demo.orders --column 'id BIGINT' --column 'note STRING' --primary-key id --stream orders --shards 4\n  silt --local ./state table create demo.days --column 'id INT' --column 'dt DATE' --primary-key id,dt --partition-by dt --option bucket=2 --other-option scan.mode=latest"
)]
pub(crate) struct Create {
    /// db.table
    pub(crate) table: String,
    /// A column: NAME TYPE [NOT NULL]; may be repeated.
    #[arg(long = "column", value_name = "NAME TYPE", required = true)]
    pub(crate) columns: Vec<String>,
    /// Primary key columns, comma separated.
    #[arg(long, value_delimiter = ',', required = true, value_name = "COLUMNS")]
    pub(crate) primary_key: Vec<String>,
    /// Partition columns, comma separated; they must be part of the primary key.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) partition_by: Vec<String>,
    /// A table option of Paimon KEY=VALUE; may be repeated (bucket defaults to 1). A name that Siltstone does not know is refused.
    #[arg(long = "option", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// An option KEY=VALUE that only other engines read, or your own tools (scan.mode, sink.parallelism, ...); Siltstone keeps it and does nothing with it. May be repeated.
    #[arg(long = "other-option", value_name = "KEY=VALUE")]
    pub(crate) other_options: Vec<String>,
    /// Free text.
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// Kinesis stream that feeds the table; created when missing (local stack only).
    #[arg(long, value_name = "NAME")]
    pub(crate) stream: Option<String>,
    /// Shards of a stream created here.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) shards: u32,
    /// Decoder of the stream's records.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub(crate) format: Format,
    /// Field of plain JSON records that holds the operation: d and delete delete; c, r, u, insert, update, upsert and the like store the row; other words go to the quarantine.
    #[arg(long, value_name = "FIELD")]
    pub(crate) op_field: Option<String>,
    /// Full decoder configuration (JSON file): format, mapping, limits; functions/ingest/README.md lists it. Overrides --format.
    #[arg(long, value_name = "FILE")]
    pub(crate) decoder: Option<PathBuf>,
}

/// Record formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Plain JSON objects, upserts, with an optional op field.
    Json,
    /// Debezium JSON.
    DebeziumJson,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// db.table
    pub(crate) table: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "With none of the options this shows the feed; what is not given stays as it is. A warm `ingest` sees a change at most 10 s after it: \
                  batches that come later are decoded by it. What was decoded before stays; records in quarantine wait for `silt quarantine replay`.\n\
                  The stream is set once: a table that has taken records of one stream takes none of another.\n\n\
                  Examples:\n  silt --local ./state table feed demo.orders\n  silt --local ./state table feed demo.orders --op-field op\n  \
                  silt --bucket lake table feed shop.orders --decoder decoder.json\n  silt --bucket lake table feed shop.orders --stream orders --format debezium-json"
)]
pub(crate) struct Feed {
    /// db.table
    pub(crate) table: String,
    /// Kinesis stream that feeds the table; created when missing (local stack only).
    #[arg(long, value_name = "NAME")]
    pub(crate) stream: Option<String>,
    /// Shards of a stream created here.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), requires = "stream")]
    pub(crate) shards: u32,
    /// Record format.
    #[arg(long, value_enum, conflicts_with = "decoder")]
    pub(crate) format: Option<Format>,
    /// Field of plain JSON records that holds the operation, as in `silt table create`.
    #[arg(long, value_name = "FIELD", conflicts_with = "decoder")]
    pub(crate) op_field: Option<String>,
    /// Full decoder configuration (JSON file) in place of the one that is there; functions/ingest/README.md lists it, and --json prints the present one.
    #[arg(long, value_name = "FILE")]
    pub(crate) decoder: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Drop {
    /// db.table
    pub(crate) table: String,
    /// Also delete every object of the table.
    #[arg(long)]
    pub(crate) purge: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt --local ./state produce orders.jsonl --table demo.orders\n  cat orders.jsonl | silt --local ./state produce - --table demo.orders --align-buckets"
)]
pub(crate) struct Produce {
    /// File with one JSON record a line; - for standard input.
    pub(crate) file: String,
    /// Table whose stream takes the records; its primary key becomes the partition key.
    #[arg(long)]
    pub(crate) table: String,
    /// Choose each record's hash key so that a shard touches only the buckets of its range (fewer, larger files).
    #[arg(long)]
    pub(crate) align_buckets: bool,
}

/// Output forms of `silt scan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns for people.
    Table,
    /// One JSON object a row.
    Json,
    /// Comma separated values with a header.
    Csv,
    /// A Parquet file (needs --output-file).
    Parquet,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt --local ./state scan demo.orders --where \"o_orderstatus = 'F' and o_totalprice > 1000\" --limit 10\n  silt scan --warehouse file:///data/wh demo.orders --select o_orderkey,o_clerk --format csv\n  silt --local ./state scan demo.orders --snapshot 3 --json\n  silt --local ./state scan demo.orders --changelog --snapshot 3"
)]
pub(crate) struct Scan {
    /// db.table
    pub(crate) table: String,
    /// Rows to keep: COLUMN OP LITERAL or COLUMN is null, COLUMN is not null, joined by `and`; OP is one of = != < <= > >=, text stands in 'quotes'.
    #[arg(long = "where", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Columns to show, comma separated.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) select: Option<Vec<String>>,
    /// At most this many rows.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// Read this snapshot instead of the current one, with the columns of its time.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) snapshot: Option<i64>,
    /// Read the snapshot that this tag holds.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["snapshot", "changelog"])]
    pub(crate) tag: Option<String>,
    /// Read the changelog (all snapshots, or the one of --snapshot) instead of the table's rows.
    #[arg(long)]
    pub(crate) changelog: bool,
    /// How to print: aligned columns if not said (--json is short for --format json).
    #[arg(long, value_enum)]
    pub(crate) format: Option<Output>,
    /// Write to a file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// db.table
    pub(crate) table: String,
    /// Files of this snapshot instead of the current one.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) snapshot: Option<i64>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt --local ./state compact demo.orders\n  silt compact --warehouse file:///data/wh bench.orders --full\n  silt --local ./state compact demo.orders --only-bucket 0 --only-bucket 3"
)]
pub(crate) struct Compact {
    /// db.table
    pub(crate) table: String,
    /// Everything to the last level; otherwise what the picker chooses.
    #[arg(long)]
    pub(crate) full: bool,
    /// Only this bucket of the table, a number, in every partition; may be repeated (--bucket is the one on S3).
    #[arg(long = "only-bucket", value_name = "N")]
    pub(crate) buckets: Vec<i32>,
    /// Memory that the merge may take, in MiB.
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    pub(crate) memory: u64,
    #[command(flatten)]
    pub(crate) lateness: Lateness,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --deep the table's objects are listed, and its snapshots, tags, manifest lists and manifests read: a request for each of \
                  them, and memory for all their entries (about 1 KB a data file).\n\
                  --deep also reads every data and changelog file of every snapshot and tag, once and in full: one GET for a file of up to 8 MiB, \
                  one for each MiB of a larger one, so that the cost is that of reading the whole table. 4 files are open at a time, each with at \
                  most 24 MiB of its bytes and a batch of 8 MiB: about 150 MiB.\n\n\
                  Examples:\n  silt --local ./state check demo.orders\n  silt check --warehouse file:///data/wh bench.orders --deep --json"
)]
pub(crate) struct Check {
    /// db.table
    pub(crate) table: String,
    /// Also read every file: all pages readable, keys sorted and unique, rows in their bucket and partition, counts, key ranges and
    /// statistics true, checksums right.
    #[arg(long)]
    pub(crate) deep: bool,
}

/// How late a row may come.
#[derive(Debug, Args)]
pub(crate) struct Lateness {
    /// How late a row may come and still meet every newer delete of its key, in milliseconds: the value that the table's functions have.
    #[arg(long = "lateness-ms", env = "SILTSTONE_LATENESS_MS", default_value_t = LATENESS_MS, value_name = "MS")]
    pub(crate) ms: i64,
}

#[derive(Debug, Args)]
pub(crate) struct Expire {
    /// db.table
    pub(crate) table: String,
    /// With --orphans: only list them, delete nothing, expire nothing.
    #[arg(long, requires = "orphans")]
    pub(crate) dry_run: bool,
    /// Also sweep files that no snapshot names (orphans older than a day).
    #[arg(long)]
    pub(crate) orphans: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// db.table
    pub(crate) table: String,
    /// Snapshot whose content becomes current.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) to: i64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// One line per quarantined record: position, code, reason.
    #[command(
        after_help = "Examples:\n  silt --local ./state quarantine list demo.orders\n  silt --bucket lake quarantine list shop.orders --json"
    )]
    List(Named),
    /// One record in full, raw bytes included.
    #[command(
        after_help = "Examples:\n  silt --local ./state quarantine show demo.orders shardId-000000000000/49590338271490256608559692538361571095921575989136588898"
    )]
    Show(QuarantineShow),
    /// Decode records anew and put their rows where the stream had them: what came later for their keys still wins.
    Replay(QuarantineReplay),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineShow {
    /// db.table
    pub(crate) table: String,
    /// Position as `list` prints it: shard/sequence number[.sub-sequence].
    pub(crate) position: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A record is replayed once, however often this runs. One that is rejected again stays in quarantine and makes the exit code 1.\n\n\
                  Examples:\n  silt --local ./state quarantine replay demo.orders --decoder fixed.json\n  silt --bucket lake quarantine replay shop.orders shardId-000000000000/49590338271490256608559692538361571095921575989136588898"
)]
pub(crate) struct QuarantineReplay {
    /// db.table
    pub(crate) table: String,
    /// Positions as `list` prints them; all that are in quarantine where none is given.
    pub(crate) positions: Vec<String>,
    /// Decode with this configuration (JSON file, see functions/ingest/README.md) instead of that of the table's feed.
    #[arg(long, value_name = "FILE")]
    pub(crate) decoder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) lateness: Lateness,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  silt --local ./state repair demo.orders\n  silt --bucket lake repair shop.orders --yes"
)]
pub(crate) struct Repair {
    /// db.table
    pub(crate) table: String,
    /// Do it; without, only say what would be done (exit code 1 when there is something).
    #[arg(long)]
    pub(crate) yes: bool,
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    /// A verb's help, and those of the verbs below it.
    fn helps(command: &Command, path: &str, found: &mut Vec<(String, String)>) {
        let verbs: Vec<&Command> = command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
        if verbs.is_empty() {
            found.push((path.to_owned(), command.get_after_help().map(ToString::to_string).unwrap_or_default()));
        }
        for verb in verbs {
            helps(verb, &format!("{path} {}", verb.get_name()), found);
        }
    }

    /// Words as a shell splits them, up to a comment.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars() {
            match (c, quote) {
                ('#', None) => break,
                (' ', None) => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(end)) if c == end => quote = None,
                (c, _) => word.push(c),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        words
    }

    #[test]
    fn every_verb_has_examples_that_can_be_parsed() {
        let mut found = Vec::new();
        helps(&Cli::command(), "silt", &mut found);
        assert!(found.len() > 10, "{found:?}");
        for (verb, help) in found {
            let lines = help.lines().map(str::trim).filter(|line| line.starts_with("silt "));
            let examples: Vec<&str> = lines.flat_map(|line| line.split("&&")).collect();
            assert!(help.contains("Example") && !examples.is_empty(), "`{verb} --help` has no example");
            for example in examples {
                let parsed = Cli::try_parse_from(words(example)).map_err(|e| e.to_string());
                parsed
                    .and_then(|cli| cli.check().map_err(|e| e.to_string()))
                    .unwrap_or_else(|e| panic!("{example}: {e}"));
            }
        }
    }
}
