//! The streams: shards, records, sequence numbers and iterators. No I/O; the time is passed in.
//! Neighbours: `http` (the wire), `db` (what survives), `api` (requests and answers in JSON), `mod` (the lock around it).
//! Invariants: 1. sequence numbers grow strictly over all streams, also over a restart; 2. the open shards of a stream cover the
//! hash space once; 3. arrival times never fall within a shard; 4. every change is named in `changes`, for `db` to keep.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;
pub(super) const READ_BYTES_MAX: usize = 10 << 20;
pub(super) const READ_RECORDS_MAX: usize = 10_000;
const SHARDS_MAX: u32 = 1_000;
/// What a shard takes in a second, when limits are on.
const SHARD_BYTES_PER_SECOND: usize = 1 << 20;
const SHARD_RECORDS_PER_SECOND: usize = 1_000;

/// A refusal, by the service's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

pub(super) type Answer<T> = Result<T, Refusal>;

pub(super) fn refuse<T>(code: &'static str, message: impl Into<String>) -> Answer<T> {
    Err(Refusal { code, message: message.into() })
}

pub(super) fn invalid<T>(message: impl Into<String>) -> Answer<T> {
    refuse("InvalidArgumentException", message)
}

/// A position in the order of all records; shown as 56 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub(super) struct Sequence(pub(super) u64);

impl Sequence {
    pub(super) fn text(self) -> String {
        format!("49{:054}", self.0)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("49").filter(|d| d.len() == 54 && d.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok().map(Self)
    }

    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) sequence: Sequence,
    pub(super) partition_key: String,
    pub(super) data: Bytes,
    pub(super) arrival_ms: i64,
}

/// One shard. Hashes are inclusive, as text: JSON numbers of 128 bits do not travel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) parents: Vec<String>,
    #[serde(with = "decimal")]
    pub(super) start_hash: u128,
    #[serde(with = "decimal")]
    pub(super) end_hash: u128,
    pub(super) first: Sequence,
    pub(super) last: Option<Sequence>,
    pub(super) created_ms: i64,
    pub(super) closed_ms: Option<i64>,
    #[serde(skip)]
    pub(super) records: VecDeque<Record>,
    /// The second, and the records and bytes that it has taken.
    #[serde(skip)]
    window: (i64, usize, usize),
}

mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(n: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(n)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Shard {
    pub(super) fn closed(&self) -> bool {
        self.last.is_some()
    }

    /// The place of the first record at or after a sequence.
    pub(super) fn at(&self, from: Sequence) -> usize {
        self.records.partition_point(|r| r.sequence < from)
    }

    fn covers(&self, hash: u128) -> bool {
        (self.start_hash..=self.end_hash).contains(&hash)
    }

    fn admit(&mut self, bytes: usize, now_ms: i64) -> bool {
        let second = now_ms.div_euclid(1_000);
        if self.window.0 != second {
            self.window = (second, 0, 0);
        }
        let (records, total) = (self.window.1 + 1, self.window.2 + bytes);
        let fits = records <= SHARD_RECORDS_PER_SECOND && total <= SHARD_BYTES_PER_SECOND;
        if fits {
            self.window = (second, records, total);
        }
        fits
    }
}

/// One stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stream {
    pub(super) created_ms: i64,
    pub(super) retention_hours: i64,
    pub(super) on_demand: bool,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) shards: Vec<Shard>,
}

impl Stream {
    pub(super) fn shard(&self, id: &str) -> Answer<&Shard> {
        let found = self.shards.iter().find(|s| s.id == id);
        found.map_or_else(|| refuse("ResourceNotFoundException", format!("no shard {id}")), Ok)
    }

    fn shard_mut(&mut self, id: &str) -> Answer<&mut Shard> {
        let found = self.shards.iter_mut().find(|s| s.id == id);
        found.map_or_else(|| refuse("ResourceNotFoundException", format!("no shard {id}")), Ok)
    }

    pub(super) fn open_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(|s| !s.closed())
    }

    pub(super) fn children<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Shard> {
        self.shards.iter().filter(move |s| s.parents.iter().any(|p| p == id))
    }

    fn add(&mut self, (start_hash, end_hash): (u128, u128), parents: Vec<String>, first: Sequence, now_ms: i64) {
        let id = format!("shardId-{:012}", self.shards.len());
        self.shards.push(Shard {
            id,
            parents,
            start_hash,
            end_hash,
            first,
            last: None,
            created_ms: now_ms,
            closed_ms: None,
            records: VecDeque::new(),
            window: (0, 0, 0),
        });
    }
}

/// What has to be kept.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// The stream as it is now, but for its records.
    Stream(String),
    /// The stream and its records are gone.
    Dropped(String),
    /// A record came to the end of a shard.
    Record(String, String, Record),
    /// Records of a shard below this are gone.
    Trimmed(String, String, Sequence),
}

/// One record to write.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) data: Bytes,
    pub(super) partition_key: String,
    pub(super) explicit_hash: Option<u128>,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) streams: BTreeMap<String, Stream>,
    /// The last that was given out.
    pub(super) sequence: Sequence,
    pub(super) changes: Vec<Change>,
    /// Whether a shard takes only so much a second.
    pub(super) limits: bool,
}

impl Streams {
    fn next(&mut self) -> Sequence {
        self.sequence = self.sequence.next();
        self.sequence
    }

    pub(super) fn stream(&self, name: &str) -> Answer<&Stream> {
        let missing = || refuse("ResourceNotFoundException", format!("Stream {name} under account not found."));
        self.streams.get(name).map_or_else(missing, Ok)
    }

    pub(super) fn stream_mut(&mut self, name: &str) -> Answer<&mut Stream> {
        let missing = || refuse("ResourceNotFoundException", format!("Stream {name} under account not found."));
        self.streams.get_mut(name).map_or_else(missing, Ok)
    }

    fn changed(&mut self, name: &str) {
        self.changes.push(Change::Stream(name.to_owned()));
    }

    pub(super) fn create(&mut self, name: &str, shards: u32, on_demand: bool, now_ms: i64) -> Answer<()> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(good) {
            return refuse("ValidationException", "a stream's name has 1 to 128 of a-z, A-Z, 0-9, _ . -");
        }
        if shards == 0 || shards > SHARDS_MAX {
            return refuse("ValidationException", format!("ShardCount is 1 to {SHARDS_MAX}"));
        }
        if self.streams.contains_key(name) {
            return refuse("ResourceInUseException", format!("Stream {name} under account already exists."));
        }
        let tags = BTreeMap::new();
        let mut stream = Stream { created_ms: now_ms, retention_hours: 24, on_demand, tags, shards: Vec::new() };
        for range in uniform(shards) {
            let first = self.next();
            stream.add(range, Vec::new(), first, now_ms);
        }
        self.streams.insert(name.to_owned(), stream);
        self.changed(name);
        Ok(())
    }

    pub(super) fn delete(&mut self, name: &str) -> Answer<()> {
        self.stream(name)?;
        self.streams.remove(name);
        self.changes.push(Change::Dropped(name.to_owned()));
        Ok(())
    }

    /// Each record by itself is taken or refused.
    pub(super) fn put(
        &mut self,
        name: &str,
        entries: Vec<Entry>,
        now_ms: i64,
    ) -> Answer<Vec<Answer<(String, Sequence)>>> {
        self.trim(name, now_ms)?;
        let limits = self.limits;
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            let hash = entry.explicit_hash.unwrap_or_else(|| hash_of(&entry.partition_key));
            let sequence = self.sequence.next();
            let stream = self.stream_mut(name)?;
            let Some(shard) = stream.shards.iter_mut().find(|s| !s.closed() && s.covers(hash)) else {
                results.push(refuse("InternalFailure", "no open shard covers the hash"));
                continue;
            };
            if limits && !shard.admit(entry.data.len() + entry.partition_key.len(), now_ms) {
                let message = format!("Rate exceeded for shard {} in stream {name} under account.", shard.id);
                results.push(refuse("ProvisionedThroughputExceededException", message));
                continue;
            }
            let arrival_ms = shard.records.back().map_or(now_ms, |r| r.arrival_ms.max(now_ms));
            let record = Record { sequence, partition_key: entry.partition_key, data: entry.data, arrival_ms };
            shard.records.push_back(record.clone());
            let id = shard.id.clone();
            self.sequence = sequence;
            self.changes.push(Change::Record(name.to_owned(), id.clone(), record));
            results.push(Ok((id, sequence)));
        }
        Ok(results)
    }

    /// Forgets what is older than the retention.
    pub(super) fn trim(&mut self, name: &str, now_ms: i64) -> Answer<()> {
        let stream = self.stream_mut(name)?;
        let horizon = now_ms - stream.retention_hours * HOUR_MS;
        let mut trimmed = Vec::new();
        for shard in &mut stream.shards {
            let old = shard.records.partition_point(|r| r.arrival_ms < horizon);
            if let Some(last) = shard.records.drain(..old).next_back() {
                trimmed.push(Change::Trimmed(name.to_owned(), shard.id.clone(), last.sequence.next()));
            }
        }
        self.changes.extend(trimmed);
        Ok(())
    }

    /// Closes an open shard.
    fn close(&mut self, name: &str, id: &str, now_ms: i64) -> Answer<()> {
        let last = self.next();
        let shard = self.stream_mut(name)?.shard_mut(id)?;
        (shard.last, shard.closed_ms) = (Some(last), Some(now_ms));
        Ok(())
    }

    fn child(&mut self, name: &str, range: (u128, u128), parents: Vec<String>, now_ms: i64) -> Answer<()> {
        let first = self.next();
        self.stream_mut(name)?.add(range, parents, first, now_ms);
        Ok(())
    }

    fn open_range(&self, name: &str, id: &str) -> Answer<(u128, u128)> {
        let shard = self.stream(name)?.shard(id)?;
        if shard.closed() {
            return invalid(format!("Shard {id} in stream {name} under account is not open."));
        }
        Ok((shard.start_hash, shard.end_hash))
    }

    pub(super) fn split(&mut self, name: &str, id: &str, at: u128, now_ms: i64) -> Answer<()> {
        let (start, end) = self.open_range(name, id)?;
        if at <= start || at > end {
            return invalid(format!("NewStartingHashKey {at} does not split {start} to {end} of shard {id}"));
        }
        self.close(name, id, now_ms)?;
        for range in [(start, at - 1), (at, end)] {
            self.child(name, range, vec![id.to_owned()], now_ms)?;
        }
        self.changed(name);
        Ok(())
    }

    pub(super) fn merge(&mut self, name: &str, id: &str, adjacent: &str, now_ms: i64) -> Answer<()> {
        let (a, b) = (self.open_range(name, id)?, self.open_range(name, adjacent)?);
        if a.1.checked_add(1) != Some(b.0) && b.1.checked_add(1) != Some(a.0) {
            return invalid(format!("Shards {id} and {adjacent} in stream {name} under account are not adjacent"));
        }
        self.close(name, id, now_ms)?;
        self.close(name, adjacent, now_ms)?;
        let range = (a.0.min(b.0), a.1.max(b.1));
        self.child(name, range, vec![id.to_owned(), adjacent.to_owned()], now_ms)?;
        self.changed(name);
        Ok(())
    }

    /// To equal ranges: splits at the new borders, then merges what lies between two of them.
    pub(super) fn rescale(&mut self, name: &str, shards: u32, now_ms: i64) -> Answer<()> {
        if shards == 0 || shards > SHARDS_MAX {
            return invalid(format!("TargetShardCount is 1 to {SHARDS_MAX}"));
        }
        for (border, _) in uniform(shards) {
            let inside = |s: &&Shard| s.start_hash < border && border <= s.end_hash;
            let cut = self.stream(name)?.open_shards().find(inside).map(|s| s.id.clone());
            if let Some(id) = cut {
                self.split(name, &id, border, now_ms)?;
            }
        }
        for (start, end) in uniform(shards) {
            loop {
                let mut within: Vec<_> =
                    self.stream(name)?.open_shards().filter(|s| s.start_hash >= start && s.end_hash <= end).collect();
                within.sort_by_key(|s| s.start_hash);
                let [a, b, ..] = within.as_slice() else { break };
                let (a, b) = (a.id.clone(), b.id.clone());
                self.merge(name, &a, &b, now_ms)?;
            }
        }
        Ok(())
    }

    pub(super) fn set_retention(&mut self, name: &str, hours: i64, grow: bool) -> Answer<()> {
        let stream = self.stream_mut(name)?;
        if !(24..=8_760).contains(&hours) {
            return invalid("RetentionPeriodHours is 24 to 8760");
        }
        if grow && hours < stream.retention_hours || !grow && hours > stream.retention_hours {
            let now = stream.retention_hours;
            return invalid(format!("the retention is {now} hours: {hours} is in the other direction"));
        }
        stream.retention_hours = hours;
        self.changed(name);
        Ok(())
    }

    pub(super) fn tag(&mut self, name: &str, tags: BTreeMap<String, String>, removed: &[String]) -> Answer<()> {
        let stream = self.stream_mut(name)?;
        stream.tags.retain(|key, _| !removed.contains(key));
        let count = stream.tags.len() + tags.keys().filter(|k| !stream.tags.contains_key(*k)).count();
        if count > 50 {
            return invalid("a stream has at most 50 tags");
        }
        stream.tags.extend(tags);
        self.changed(name);
        Ok(())
    }
}

/// Equal ranges over all hashes, the last with the rest.
pub(super) fn uniform(shards: u32) -> impl Iterator<Item = (u128, u128)> {
    let count = u128::from(shards.max(1));
    let width = if count == 1 { u128::MAX } else { (u128::MAX / count).saturating_add(1) };
    (0..count).map(move |n| {
        let start = n * width;
        (start, if n + 1 == count { u128::MAX } else { start + (width - 1) })
    })
}

/// MD5, as an integer.
fn hash_of(partition_key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(data: &'static str) -> Entry {
        Entry { data: Bytes::from_static(data.as_bytes()), partition_key: "k".into(), explicit_hash: None }
    }

    fn covered(streams: &Streams, name: &str) -> usize {
        let mut open: Vec<_> = streams.stream(name).unwrap().open_shards().collect();
        open.sort_by_key(|s| s.start_hash);
        assert_eq!((open[0].start_hash, open[open.len() - 1].end_hash), (0, u128::MAX));
        assert!(open.windows(2).all(|w| w[0].end_hash + 1 == w[1].start_hash));
        open.len()
    }

    #[test]
    fn rescaling_to_any_count_covers_the_hash_space_once() {
        let mut streams = Streams::default();
        streams.create("s", 3, false, 0).unwrap();
        for count in [1, 2, 4, 3, 7, 5, 16, 1] {
            streams.rescale("s", count, 0).unwrap();
            assert_eq!(covered(&streams, "s"), count as usize);
        }
    }

    #[test]
    fn a_split_leaves_both_sides_a_hash_and_is_refused_where_it_would_not() {
        for (at, splits) in [(99, false), (100, false), (101, true), (199, true), (200, false)] {
            let mut streams = Streams::default();
            streams.create("s", 1, false, 0).unwrap();
            streams.split("s", "shardId-000000000000", 100, 0).unwrap();
            streams.split("s", "shardId-000000000002", 200, 0).unwrap();
            let split = streams.split("s", "shardId-000000000003", at, 0);
            assert_eq!(split.is_ok(), splits, "100 to 199 at {at}");
            assert_eq!(covered(&streams, "s"), if splits { 4 } else { 3 });
        }
    }

    #[test]
    fn sequences_have_56_digits_and_read_back() {
        let text = Sequence(123).text();
        assert_eq!((text.len(), Sequence::parse(&text)), (56, Some(Sequence(123))));
        assert_eq!(Sequence::parse("49"), None);
        assert_eq!(Sequence::parse(&"1".repeat(56)), None);
    }

    #[test]
    fn records_past_the_retention_are_gone_and_named_as_changes() {
        let mut streams = Streams::default();
        streams.create("s", 1, false, 0).unwrap();
        streams.put("s", vec![entry("old")], 0).unwrap();
        streams.put("s", vec![entry("new")], 24 * HOUR_MS + 1).unwrap();
        let shard = &streams.stream("s").unwrap().shards[0];
        assert_eq!(shard.records.len(), 1);
        assert!(streams.changes.iter().any(|c| matches!(c, Change::Trimmed(..))));
    }

    #[test]
    fn with_limits_on_a_shard_refuses_records_one_by_one_and_recovers_in_the_next_second() {
        let mut streams = Streams { limits: true, ..Streams::default() };
        streams.create("s", 1, false, 0).unwrap();
        for now_ms in [0, 1_000] {
            let results = streams.put("s", vec![entry("x"); 1_001], now_ms).unwrap();
            assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1_000);
            assert_eq!(results[1_000].as_ref().unwrap_err().code, "ProvisionedThroughputExceededException");
        }
    }

    #[test]
    fn arrival_times_never_fall_when_the_clock_steps_back() {
        let mut streams = Streams::default();
        streams.create("s", 1, false, 9).unwrap();
        for now_ms in [9, 5, 12] {
            streams.put("s", vec![entry("x")], now_ms).unwrap();
        }
        let arrivals: Vec<_> = streams.stream("s").unwrap().shards[0].records.iter().map(|r| r.arrival_ms).collect();
        assert_eq!(arrivals, [9, 9, 12]);
    }
}
