//! `silt produce`: lines of a file into a table's stream, in the order of the file for each key.
//!
//! Neighbours: `store`'s stream port. Invariants: 1. a call holds at most one record of a key, so that a record that failed and is sent again
//! never passes, nor is passed by, another one of its key; 2. lines that the table's decoder rejects are sent all the same: whoever reads the
//! stream decides, here they are only counted.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{BufRead, BufReader},
    time::Duration,
};

use serde_json::json;
use siltstone_decode::{Decoded, Decoder};
use siltstone_format::{bucket::Bucketer, value::Value};
use siltstone_store::stream::{PUT_RECORDS_MAX, PutRecord, StreamErrorKind, StreamWriter};
use siltstone_table::{Purpose, Table, settings::Feed, text};

use crate::{
    args::{Place, Produce},
    failure::{Done, Failure},
    out::{self, Out},
    place::Warehouse,
};

/// Records read ahead, to fill calls although some keys must wait.
const WINDOW: usize = 5_000;
/// Bytes of a call, below the 5 MiB of Kinesis.
const CALL_BYTES: usize = 4 << 20;
const TRIES: u32 = 12;

/// What was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    calls: u64,
    again: u64,
    rejected: u64,
}

pub(crate) async fn run(place: &Place, args: Produce, out: &mut Out) -> Result<Done, Failure> {
    let warehouse = Warehouse::open(place).await?;
    let streams = warehouse.streams()?;
    let table = warehouse.table(&args.table, Purpose::Read).await?;
    let feed = Feed::load(&table.ports, &table.at).await?;
    let keys = Keys::new(&table, &feed, args.align_buckets)?;
    let stream = feed.stream_arn.rsplit('/').next().unwrap_or_default().to_owned();
    let input: Box<dyn BufRead + Send> = if args.file == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(&args.file).map_err(|e| Failure::Usage(format!("{}: {e}", args.file)))?;
        Box::new(BufReader::new(file))
    };
    let mut lines = input.lines();
    let (mut waiting, mut sent) = (VecDeque::new(), Sent::default());
    let bar = out::progress("records", None);
    loop {
        while waiting.len() < WINDOW
            && let Some(line) = lines.next()
        {
            let line = line?;
            if !line.trim().is_empty() {
                let (record, rejected) = keys.record(line);
                sent.rejected += u64::from(rejected);
                waiting.push_back(record);
            }
        }
        if waiting.is_empty() {
            break;
        }
        let before = sent.records;
        send(&streams, &stream, &mut waiting, &mut sent, &mut |_, _| {}).await?;
        bar.inc(sent.records - before);
    }
    bar.finish_and_clear();
    let json = json!({
        "stream": stream, "records": sent.records, "bytes": sent.bytes, "calls": sent.calls, "sentAgain": sent.again,
        "undecodable": sent.rejected});
    let mut words =
        format!("{} records ({}) in {} calls to stream {stream}", sent.records, out::bytes(sent.bytes), sent.calls);
    if sent.rejected > 0 {
        words.push_str(&format!("; {} of them the table cannot decode: they go to its quarantine", sent.rejected));
    }
    out.object(&json, words)?;
    Ok(Done::Well)
}

/// Sends one call from the front of `waiting`; what was not taken stays, in its order. `placed` hears shard and sequence number of each record.
pub(crate) async fn send(
    streams: &impl StreamWriter,
    stream: &str,
    waiting: &mut VecDeque<PutRecord>,
    sent: &mut Sent,
    placed: &mut (dyn FnMut(String, String) + Send),
) -> Result<(), Failure> {
    let (call, rest) = split(std::mem::take(waiting));
    let mut call = call;
    *waiting = rest;
    for attempt in 0..TRIES {
        sent.calls += 1;
        let answer = streams.put_records(stream, &call).await;
        let failed: Vec<PutRecord> = match answer {
            Ok(results) => {
                let mut failed = Vec::new();
                for (record, result) in call.into_iter().zip(results) {
                    match result {
                        Ok(put) => {
                            sent.records += 1;
                            sent.bytes += record.data.len() as u64;
                            placed(put.shard, put.sequence);
                        }
                        Err(_) => failed.push(record),
                    }
                }
                failed
            }
            Err(error)
                if matches!(
                    error.kind(),
                    StreamErrorKind::Throttled | StreamErrorKind::Unavailable | StreamErrorKind::Unknown
                ) =>
            {
                if attempt + 1 == TRIES {
                    return Err(error.into());
                }
                call
            }
            Err(error) => return Err(error.into()),
        };
        if failed.is_empty() {
            return Ok(());
        }
        sent.again += failed.len() as u64;
        call = failed;
        tokio::time::sleep(Duration::from_millis(50 << attempt.min(6))).await;
    }
    Err(Failure::Unavailable(format!(
        "{} records of stream {stream} were refused {TRIES} times: the stream has too few shards, or does not answer; {} were written",
        call.len(),
        sent.records
    )))
}

/// One call's records, at most one of each key, and the others in their order.
fn split(records: VecDeque<PutRecord>) -> (Vec<PutRecord>, VecDeque<PutRecord>) {
    let (mut call, mut rest, mut bytes) = (Vec::new(), VecDeque::new(), 0);
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for record in records {
        let full = call.len() >= PUT_RECORDS_MAX || (!call.is_empty() && bytes + record.data.len() > CALL_BYTES);
        // A key that waits once waits on: the next of it must not go first.
        if !taken.insert(record.partition_key.clone()) || full {
            rest.push_back(record);
        } else {
            bytes += record.data.len();
            call.push(record);
        }
    }
    (call, rest)
}

/// The middle of a bucket's share of the hash range: a shard that is cut between shares touches only whole buckets.
pub(crate) fn hash_key(bucketer: &Bucketer, bucket_key: &[Value]) -> Option<u128> {
    let bucket = u128::try_from(bucketer.bucket(bucket_key).ok()?.0).ok()?;
    let share = u128::MAX / u128::try_from(bucketer.buckets()).ok()?.max(1);
    Some(share * bucket + share / 2)
}

/// Finds partition keys, and hash keys for aligned buckets.
struct Keys<'a> {
    table: &'a Table,
    decoder: Decoder,
    primary: Vec<usize>,
    bucket_key: Vec<usize>,
    bucketer: Option<Bucketer>,
}

impl<'a> Keys<'a> {
    fn new(table: &'a Table, feed: &Feed, align: bool) -> Result<Self, Failure> {
        let decoder = Decoder::new(&table.schema, &feed.decoder).map_err(|faults| {
            Failure::Problem(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let bucketer = if align { Some(table.bucketer()?) } else { None };
        let bucket_key = table.schema.bucket_key_indices().map_err(|e| Failure::Problem(e.to_string()))?;
        Ok(Self { table, decoder, primary: table.schema.primary_key_indices(), bucket_key, bucketer })
    }

    /// The record of a line, and whether the table cannot decode it.
    fn record(&self, line: String) -> (PutRecord, bool) {
        let row = match self.decoder.decode(line.as_bytes()) {
            Decoded::Changes(rows) => rows.into_iter().next_back().map(|change| change.row),
            Decoded::Ignored(_) => None,
            Decoded::Rejected(_) => {
                return (
                    PutRecord { data: line.into(), partition_key: "undecodable".to_owned(), explicit_hash_key: None },
                    true,
                );
            }
        };
        let Some(row) = row else {
            return (
                PutRecord { data: line.into(), partition_key: "no-row".to_owned(), explicit_hash_key: None },
                false,
            );
        };
        let key: Vec<String> = self.primary.iter().filter_map(|&c| self.cell(&row, c)).collect();
        // Kinesis takes 1 to 256 characters.
        let partition_key: String = key.join("|").chars().take(256).collect();
        let partition_key = if partition_key.is_empty() { "empty".to_owned() } else { partition_key };
        let explicit_hash_key = self.bucketer.as_ref().and_then(|bucketer| {
            let values: Vec<Value> = self.bucket_key.iter().filter_map(|&c| row.get(c).cloned()).collect();
            hash_key(bucketer, &values)
        });
        (PutRecord { data: line.into(), partition_key, explicit_hash_key }, false)
    }

    fn cell(&self, row: &[Value], column: usize) -> Option<String> {
        let field = self.table.schema.fields.get(column)?;
        row.get(column).map(|value| text::show(value, &field.data_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, data: &'static str) -> PutRecord {
        PutRecord { data: data.into(), partition_key: key.to_owned(), explicit_hash_key: None }
    }

    #[test]
    fn a_call_holds_one_record_of_a_key_and_the_others_keep_their_order() {
        let records = [record("a", "1"), record("b", "1"), record("a", "2"), record("a", "3"), record("c", "1")];
        let (call, rest) = split(records.into());
        let show = |records: &mut dyn Iterator<Item = &PutRecord>| {
            records
                .map(|r| format!("{}{}", r.partition_key, String::from_utf8_lossy(&r.data)))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(show(&mut call.iter()), "a1 b1 c1");
        assert_eq!(show(&mut rest.iter()), "a2 a3");
    }

    #[test]
    fn a_call_has_at_most_500_records_and_a_key_that_waited_is_not_passed() {
        let mut records: VecDeque<PutRecord> = (0..600).map(|i| record(&format!("k{i}"), "x")).collect();
        records.push_back(record("k550", "later"));
        let (call, rest) = split(records);
        assert_eq!(call.len(), 500);
        let of_550: Vec<&[u8]> = rest.iter().filter(|r| r.partition_key == "k550").map(|r| r.data.as_ref()).collect();
        assert_eq!(of_550, [b"x".as_slice(), b"later"]);
    }
}
