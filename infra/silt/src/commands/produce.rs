//! `silt produce`: lines of a file into a table's stream, in the order of the file for each key.
//!
//! Neighbours: `store`'s stream port. Invariants: 1. a call holds at most one record of a key, so that a record that failed and is sent again
//! never passes, nor is passed by, another one of its key; 2. lines that the table's decoder rejects are sent all the same: whoever reads the
//! stream decides, here they are only counted; 3. a failure says what the stream has taken and from which line on to go on.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    time::Duration,
};

use indicatif::ProgressBar;
use serde_json::json;
use siltstone_decode::{Decoded, Decoder, config::BadRecords};
use siltstone_format::{
    bucket::{Bucketer, hash_bytes},
    value::Value,
};
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
/// Bytes of a record with its partition key: what Kinesis takes unless the stream was told to take more.
const RECORD_BYTES: usize = 1 << 20;

/// What some editors put before a text in UTF-8: no part of its first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A record that was not sent yet, and the line it comes from.
pub(crate) struct Pending {
    pub(crate) line: u64,
    pub(crate) record: PutRecord,
}

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
    let mut lines = Lines::open(&args.file)?;
    let mut sent = Sent::default();
    let bar = out::progress("records", None);
    let poured = pour(&streams, &stream, &mut lines, |line, number| keys.record(line, number), &mut sent, &bar).await;
    bar.finish_and_clear();
    poured?;
    let json = json!({
        "stream": stream, "records": sent.records, "bytes": sent.bytes, "calls": sent.calls, "sentAgain": sent.again,
        "undecodable": sent.rejected, "badRecords": feed.decoder.bad_records});
    let mut words =
        format!("{} records ({}) in {} calls to stream {stream}", sent.records, out::bytes(sent.bytes), sent.calls);
    if sent.rejected > 0 {
        words.push_str(&format!(
            "; {} of them the table cannot decode: {}",
            sent.rejected,
            undecodable(&feed, &args.table)
        ));
    }
    out.object(&json, words)?;
    Ok(Done::Well)
}

/// What becomes of records that were sent though the table cannot decode them.
fn undecodable(feed: &Feed, table: &str) -> String {
    match feed.decoder.bad_records {
        BadRecords::Quarantine => format!("they go to its quarantine (`silt quarantine list {table}`)"),
        BadRecords::Fail => format!(
            "its decoder says `bad-records: fail`, so each shard stops at the first of them, and what comes after it waits, until a decoder that \
             takes them, or says `quarantine`, is set with `silt table feed {table} --decoder FILE`"
        ),
    }
}

/// Sends every line. A failure says how many records the stream confirmed, and the first line that it did not.
async fn pour(
    streams: &impl StreamWriter,
    stream: &str,
    lines: &mut Lines,
    record: impl Fn(Vec<u8>, u64) -> (PutRecord, bool),
    sent: &mut Sent,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let (mut waiting, mut read) = (VecDeque::new(), Ok(()));
    let ended = loop {
        while read.is_ok() && waiting.len() < WINDOW {
            match lines.next(&record) {
                Ok(None) => break,
                Ok(Some((pending, rejected))) => {
                    sent.rejected += u64::from(rejected);
                    waiting.push_back(pending);
                }
                // What stands before the bad line goes out first: then the place to go on from is that line.
                Err(error) => read = Err(error),
            }
        }
        if waiting.is_empty() {
            break read;
        }
        if let Err(error) = send(streams, stream, &mut waiting, sent, &mut |_, _| {}).await {
            break Err(error);
        }
        bar.set_position(sent.records);
    };
    ended.map_err(|error| {
        let next = waiting.iter().map(|pending| pending.line).min().unwrap_or(lines.number);
        error.after(&format!(
            "stream {stream} confirmed {} records; {}:{next} is the first line that it did not",
            sent.records, lines.name
        ))
    })
}

/// Lines of a file or of standard input, as bytes: what is no text is for the table's quarantine to tell.
struct Lines {
    name: String,
    input: Box<dyn BufRead + Send>,
    number: u64,
}

impl Lines {
    fn open(name: &str) -> Result<Self, Failure> {
        if name == "-" {
            return Ok(Self::over("standard input", Box::new(BufReader::new(std::io::stdin()))));
        }
        if Path::new(name).is_dir() {
            return Err(Failure::Usage(format!(
                "{name} is a directory: name a file of JSON lines, or - for standard input"
            )));
        }
        let file = File::open(name).map_err(|e| Failure::Usage(format!("{name}: {e}")))?;
        Ok(Self::over(name, Box::new(BufReader::new(file))))
    }

    fn over(name: &str, input: Box<dyn BufRead + Send>) -> Self {
        Self { name: name.to_owned(), input, number: 0 }
    }

    /// The record of the next line that is not blank; never reads more than a record may hold.
    fn next(&mut self, record: impl Fn(Vec<u8>, u64) -> (PutRecord, bool)) -> Result<Option<(Pending, bool)>, Failure> {
        loop {
            self.number += 1;
            let mut line = Vec::new();
            let mark = if self.number == 1 { BYTE_ORDER_MARK } else { &[] };
            let most = (RECORD_BYTES + mark.len()) as u64 + 2;
            let read = self.input.by_ref().take(most).read_until(b'\n', &mut line);
            read.map_err(|e| Failure::Problem(format!("{}:{}: {e}", self.name, self.number)))?;
            if line.is_empty() {
                return Ok(None);
            }
            if line.starts_with(mark) {
                line.drain(..mark.len());
            }
            if line.pop_if(|byte| *byte == b'\n').is_some() {
                line.pop_if(|byte| *byte == b'\r');
            }
            // Before anything looks at it: what was read may be only the beginning of the line.
            if line.len() > RECORD_BYTES {
                return Err(self.too_long());
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let (record, rejected) = record(line, self.number);
            if record.data.len() + record.partition_key.len() > RECORD_BYTES {
                return Err(self.too_long());
            }
            return Ok(Some((Pending { line: self.number, record }, rejected)));
        }
    }

    fn too_long(&self) -> Failure {
        Failure::Usage(format!(
            "{}:{}: the line is longer than a record of Kinesis may be, {RECORD_BYTES} bytes with its partition key",
            self.name, self.number
        ))
    }
}

/// Sends one call from the front of `waiting`; what was not taken stays, in its order. `placed` hears shard and sequence number of each record.
pub(crate) async fn send(
    streams: &impl StreamWriter,
    stream: &str,
    waiting: &mut VecDeque<Pending>,
    sent: &mut Sent,
    placed: &mut (dyn FnMut(String, String) + Send),
) -> Result<(), Failure> {
    let (mut call, rest) = split(std::mem::take(waiting));
    *waiting = rest;
    for attempt in 0..TRIES {
        sent.calls += 1;
        let records: Vec<PutRecord> = call.iter().map(|pending| pending.record.clone()).collect();
        let failed = match streams.put_records(stream, &records).await {
            Ok(results) => {
                let mut failed = Vec::new();
                for (pending, result) in call.into_iter().zip(results) {
                    match result {
                        Ok(put) => {
                            sent.records += 1;
                            sent.bytes += pending.record.data.len() as u64;
                            placed(put.shard, put.sequence);
                        }
                        Err(_) => failed.push(pending),
                    }
                }
                failed
            }
            Err(error) => {
                let passes = matches!(
                    error.kind(),
                    StreamErrorKind::Throttled | StreamErrorKind::Unavailable | StreamErrorKind::Unknown
                );
                if !passes || attempt + 1 == TRIES {
                    put_back(call, waiting);
                    return Err(error.into());
                }
                call
            }
        };
        if failed.is_empty() {
            return Ok(());
        }
        sent.again += failed.len() as u64;
        call = failed;
        tokio::time::sleep(Duration::from_millis(50 << attempt.min(6))).await;
    }
    let refused = call.len();
    put_back(call, waiting);
    Err(Failure::Unavailable(format!(
        "{refused} records of stream {stream} were refused {TRIES} times: the stream has too few shards, or does not answer"
    )))
}

/// Before what waits: for whoever tells how far it came.
fn put_back(call: Vec<Pending>, waiting: &mut VecDeque<Pending>) {
    for pending in call.into_iter().rev() {
        waiting.push_front(pending);
    }
}

/// One call's records, at most one of each key, and the others in their order.
fn split(records: VecDeque<Pending>) -> (Vec<Pending>, VecDeque<Pending>) {
    let (mut call, mut rest, mut bytes) = (Vec::new(), VecDeque::new(), 0);
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for pending in records {
        let size = pending.record.data.len();
        let full = call.len() >= PUT_RECORDS_MAX || (!call.is_empty() && bytes + size > CALL_BYTES);
        // A key that waits once waits on: the next of it must not go first.
        if !taken.insert(pending.record.partition_key.clone()) || full {
            rest.push_back(pending);
        } else {
            bytes += size;
            call.push(pending);
        }
    }
    (call, rest)
}

/// A point in the bucket's slice of the hash range, the same for every record of a key: a shard that is cut between slices touches only whole
/// buckets, and the shards of a slice share its keys.
pub(crate) fn hash_key(bucketer: &Bucketer, bucket_key: &[Value], partition_key: &str) -> Option<u128> {
    let bucket = u128::try_from(bucketer.bucket(bucket_key).ok()?.0).ok()?;
    let slice = u128::MAX / u128::try_from(bucketer.buckets()).ok()?.max(1);
    let position = u128::from(hash_bytes(partition_key.as_bytes()).cast_unsigned());
    Some(slice * bucket + (slice >> 32) * position)
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

    /// The record of a line, and whether the table cannot decode it. What is no row has no order to keep: each gets a key of its own.
    fn record(&self, line: Vec<u8>, number: u64) -> (PutRecord, bool) {
        let decoded = self.decoder.decode(&line);
        let rejected = matches!(decoded, Decoded::Rejected(_));
        let row = match decoded {
            Decoded::Changes(rows) => rows.into_iter().next_back().map(|change| change.row),
            Decoded::Ignored(_) | Decoded::Rejected(_) => None,
        };
        let Some(row) = row else {
            let partition_key = format!("{}-{number}", if rejected { "undecodable" } else { "no-row" });
            return (PutRecord { data: line.into(), partition_key, explicit_hash_key: None }, rejected);
        };
        let key: Vec<String> = self.primary.iter().filter_map(|&c| self.cell(&row, c)).collect();
        // Kinesis takes 1 to 256 characters.
        let partition_key: String = key.join("|").chars().take(256).collect();
        let partition_key = if partition_key.is_empty() { "empty".to_owned() } else { partition_key };
        let explicit_hash_key = self.bucketer.as_ref().and_then(|bucketer| {
            let values: Vec<Value> = self.bucket_key.iter().filter_map(|&c| row.get(c).cloned()).collect();
            hash_key(bucketer, &values, &partition_key)
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
    use std::sync::Mutex;

    use async_trait::async_trait;
    use siltstone_format::{bucket::BucketFunction, types::DataType};
    use siltstone_store::stream::{Put, PutFailure, StreamError, StreamResult};

    use super::*;

    fn record(key: &str, data: &'static str) -> Pending {
        let record = PutRecord { data: data.into(), partition_key: key.to_owned(), explicit_hash_key: None };
        Pending { line: 1, record }
    }

    #[test]
    fn keys_of_one_bucket_spread_over_all_shards_of_its_slice_and_each_key_keeps_its_place() {
        let bucketer =
            |buckets| Bucketer::new(vec![DataType::parse("BIGINT").unwrap()], BucketFunction::Murmur, buckets).unwrap();
        let place =
            |bucketer: &Bucketer, key: i64| hash_key(bucketer, &[Value::BigInt(key)], &key.to_string()).unwrap();
        let one = bucketer(1);
        let mut shards = [0; 4];
        for key in 0..1_000 {
            // Four shards share the range evenly.
            shards[usize::try_from(place(&one, key) >> 126).unwrap()] += 1;
            assert_eq!(place(&one, key), place(&one, key), "a key stays in its shard");
        }
        assert!(shards.iter().all(|keys| (200..300).contains(keys)), "{shards:?}");
        let seven = bucketer(7);
        for key in 0..1_000 {
            let bucket = u128::try_from(seven.bucket(&[Value::BigInt(key)]).unwrap().0).unwrap();
            assert_eq!(place(&seven, key) / (u128::MAX / 7), bucket, "within the bucket's slice");
        }
    }

    #[test]
    fn a_call_holds_one_record_of_a_key_and_the_others_keep_their_order() {
        let records = [record("a", "1"), record("b", "1"), record("a", "2"), record("a", "3"), record("c", "1")];
        let (call, rest) = split(records.into());
        let show = |records: &mut dyn Iterator<Item = &Pending>| {
            records
                .map(|p| format!("{}{}", p.record.partition_key, String::from_utf8_lossy(&p.record.data)))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(show(&mut call.iter()), "a1 b1 c1");
        assert_eq!(show(&mut rest.iter()), "a2 a3");
    }

    #[test]
    fn a_call_has_at_most_500_records_and_a_key_that_waited_is_not_passed() {
        let mut records: VecDeque<Pending> = (0..600).map(|i| record(&format!("k{i}"), "x")).collect();
        records.push_back(record("k550", "later"));
        let (call, rest) = split(records);
        assert_eq!(call.len(), 500);
        let of_550: Vec<&[u8]> =
            rest.iter().filter(|p| p.record.partition_key == "k550").map(|p| p.record.data.as_ref()).collect();
        assert_eq!(of_550, [b"x".as_slice(), b"later"]);
    }

    #[test]
    fn a_record_that_waits_for_room_is_not_passed_by_a_smaller_one_of_its_key() {
        let large = |key: &str| {
            let data = vec![b'x'; CALL_BYTES - 10].into();
            Pending { record: PutRecord { data, ..record(key, "").record }, line: 1 }
        };
        let waiting = [large("a"), large("b"), record("b", "small"), record("c", "small")];
        let (call, rest) = split(waiting.into());
        assert_eq!(call.iter().map(|p| p.record.partition_key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(
            rest.iter().map(|p| p.record.data.len()).collect::<Vec<_>>(),
            [CALL_BYTES - 10, 5],
            "both of b, in order"
        );
    }

    /// Takes calls without a record of the key `refused`; remembers what came.
    #[derive(Debug, Default)]
    struct Refusing {
        refused: Option<&'static str>,
        calls: Mutex<Vec<Vec<String>>>,
    }

    #[async_trait]
    impl StreamWriter for Refusing {
        async fn put_records(&self, stream: &str, records: &[PutRecord]) -> StreamResult<Vec<Result<Put, PutFailure>>> {
            if records.iter().any(|r| Some(r.partition_key.as_str()) == self.refused) {
                return Err(StreamError::new(StreamErrorKind::Invalid, "put_records", stream, "refused"));
            }
            let texts = records.iter().map(|r| String::from_utf8_lossy(&r.data).into_owned()).collect();
            self.calls.lock().unwrap().push(texts);
            Ok(records.iter().map(|_| Ok(Put { shard: "s".to_owned(), sequence: "1".to_owned() })).collect())
        }
    }
    /// Every line is its own key.
    fn by_line(data: Vec<u8>, _: u64) -> (PutRecord, bool) {
        let partition_key = String::from_utf8_lossy(&data).chars().take(256).collect();
        (PutRecord { data: data.into(), partition_key, explicit_hash_key: None }, false)
    }

    fn lines(text: impl Into<Vec<u8>>) -> Lines {
        Lines::over("f", Box::new(std::io::Cursor::new(text.into())))
    }

    #[tokio::test]
    async fn what_stands_before_a_line_that_is_too_long_is_sent_and_counted_and_nothing_after_it() {
        let long = "x".repeat(RECORD_BYTES + 1);
        let (streams, mut sent) = (Refusing::default(), Sent::default());
        let mut lines = lines(format!("a\n\nb\n{long}\nc\n"));
        let ended = pour(&streams, "s", &mut lines, by_line, &mut sent, &ProgressBar::hidden()).await;
        let Err(Failure::Usage(words)) = ended else { panic!("{ended:?}") };
        assert!(words.starts_with("f:4: the line is longer"), "{words}");
        assert!(words.ends_with("; stream s confirmed 2 records; f:4 is the first line that it did not"), "{words}");
        assert_eq!(*streams.calls.lock().unwrap(), [["a", "b"]]);
    }

    #[tokio::test]
    async fn a_stream_that_refuses_is_told_with_what_it_took_and_where_to_go_on() {
        let text: Vec<String> = (1..=600).map(|n| n.to_string()).collect();
        let (streams, mut sent) = (Refusing { refused: Some("501"), ..Refusing::default() }, Sent::default());
        let mut lines = lines(format!("{}\n{}\n", text.join("\n"), "x".repeat(RECORD_BYTES + 1)));
        let ended = pour(&streams, "s", &mut lines, by_line, &mut sent, &ProgressBar::hidden()).await;
        let words = ended.unwrap_err().to_string();
        assert!(words.contains("refused") && !words.contains("longer"), "{words}");
        assert!(words.ends_with("stream s confirmed 500 records; f:501 is the first line that it did not"), "{words}");
    }

    #[test]
    fn line_ends_are_no_part_of_a_record_and_a_blank_line_is_not_read_without_end() {
        let mut lines = lines(format!("a\r\n \n{}\n", " ".repeat(3 * RECORD_BYTES)));
        let (first, _) = lines.next(by_line).unwrap().unwrap();
        assert_eq!((first.line, first.record.data.as_ref()), (1, b"a".as_slice()));
        let error = lines.next(by_line).map(|found| found.is_some()).unwrap_err();
        assert!(error.to_string().starts_with("f:3: "), "{error}");
    }

    #[test]
    fn lines_may_be_no_text_and_an_endless_one_is_named() {
        let text = [b"{\"id\": 1}\n\n\xff\xfe\n".as_slice(), &[b'x'; RECORD_BYTES + 10]].concat();
        let mut lines = lines(text);
        let record = |data: Vec<u8>, n: u64| {
            (PutRecord { data: data.into(), partition_key: n.to_string(), explicit_hash_key: None }, false)
        };
        let mut next = || lines.next(record).map(|found| found.map(|(p, _)| (p.line, p.record.data.to_vec())));
        assert_eq!(next().unwrap(), Some((1, b"{\"id\": 1}".to_vec())));
        assert_eq!(next().unwrap(), Some((3, b"\xff\xfe".to_vec())));
        let error = next().unwrap_err();
        assert!(matches!(error, Failure::Usage(_)) && error.to_string().starts_with("f:4: "), "{error}");
    }
}
