//! A snapshot object (`snapshot/snapshot-<id>`; paimon-format.md section 3).
//!
//! Neighbours: `commit` makes one per committed change; readers start from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::{FormatError, Result},
    id::{CommitIdentifier, SchemaId, SnapshotId},
    path::parse_snapshot_name,
};

/// Newest layout of a snapshot that is known.
pub const CURRENT_SNAPSHOT_VERSION: i32 = 3;
/// Largest snapshot that is read; a usual one has 1 KB, one with a checkpoint per shard of a wide stream some hundred KB.
pub const MAX_SNAPSHOT_BYTES: usize = 8 << 20;

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CommitKind {
    /// New data.
    Append,
    /// Rewritten or moved data, same rows.
    Compact,
    /// Replaced data.
    Overwrite,
    /// Statistics only.
    Analyze,
}

/// One committed state of a table, as JSON with these field names (camelCase).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Layout version, 3.
    #[serde(default = "current_version")]
    pub version: i32,
    /// Random id of this very object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Id, equal to the file name's.
    pub id: SnapshotId,
    /// Latest schema id when committed.
    pub schema_id: SchemaId,
    /// List of all manifests of the state before this commit, possibly merged.
    pub base_manifest_list: String,
    /// Exact size of the base list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_manifest_list_size: Option<i64>,
    /// List of this commit's manifests.
    pub delta_manifest_list: String,
    /// Exact size of the delta list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_manifest_list_size: Option<i64>,
    /// List of this commit's changelog manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changelog_manifest_list: Option<String>,
    /// Exact size of the changelog list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changelog_manifest_list_size: Option<i64>,
    /// Index manifest, carried over while unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_manifest: Option<String>,
    /// Who committed.
    pub commit_user: String,
    /// Grows per commit user.
    pub commit_identifier: CommitIdentifier,
    /// What the commit did.
    pub commit_kind: CommitKind,
    /// Commit time in ms since 1970; never below the previous snapshot's.
    pub time_millis: i64,
    /// Physical rows of all live files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_record_count: Option<i64>,
    /// Physical rows added minus deleted by this commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_record_count: Option<i64>,
    /// Rows of this commit's changelog files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changelog_record_count: Option<i64>,
    /// Event-time watermark, carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Statistics file, carried over while the schema id is unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<String>,
    /// Private properties; not inherited. Siltstone keeps its checkpoints here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Row tracking; carried over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_row_id: Option<i64>,
    /// Fields this version does not know, kept so that a rewrite loses nothing.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// Property with the CRC-32 of the object's bytes, its own eight digits counted as zeros. A [`Snapshot`] never holds it: it is put into what is
/// stored under `snapshot-<id>` ([`Snapshot::to_sealed_json`]) and taken out of what is read from there.
const SUM: &str = "siltstone.crc32";
const OPEN: &str = "00000000";

/// The place of the checksum's digits. Quotes inside of JSON texts are escaped, so nothing else can look like this.
fn digits_in(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let pattern = format!("\"{SUM}\":\"");
    let at = bytes.windows(pattern.len()).position(|window| window == pattern.as_bytes())? + pattern.len();
    (at + OPEN.len() <= bytes.len()).then_some(at..at + OPEN.len())
}

fn sum_of(bytes: &[u8], digits: &std::ops::Range<usize>) -> String {
    let mut sum = crc32fast::Hasher::new();
    for part in [bytes.get(..digits.start), Some(OPEN.as_bytes()), bytes.get(digits.end..)] {
        sum.update(part.unwrap_or_default());
    }
    format!("{:08x}", sum.finalize())
}

/// Whether a snapshot object carries its checksum, as all of ours do.
#[must_use]
pub fn is_sealed(bytes: &[u8]) -> bool {
    digits_in(bytes).is_some()
}

fn current_version() -> i32 {
    CURRENT_SNAPSHOT_VERSION
}

impl Snapshot {
    /// Reads and checks a snapshot object. `object` is its key: a last segment `snapshot-<id>` must agree with the id inside.
    ///
    /// # Errors
    /// Corrupt for damaged JSON or a broken rule, Unsupported for a newer layout.
    pub fn from_json(object: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_SNAPSHOT_BYTES {
            return Err(FormatError::corrupt(object, format!("{} bytes are more than a snapshot has", bytes.len())));
        }
        let named = object.rsplit('/').next().and_then(parse_snapshot_name);
        // A tag or copy of another engine may be the same snapshot in other bytes.
        if let Some(digits) = digits_in(bytes).filter(|_| named.is_some())
            && bytes.get(digits.clone()) != Some(sum_of(bytes, &digits).as_bytes())
        {
            return Err(FormatError::corrupt(object, "its bytes do not have the checksum that it states"));
        }
        let mut snapshot: Self =
            serde_json::from_slice(bytes).map_err(|e| FormatError::corrupt(object, e.to_string()))?;
        if let Some(properties) = &mut snapshot.properties {
            properties.remove(SUM);
        }
        if named.is_some_and(|id| id != snapshot.id) {
            return Err(FormatError::corrupt(object, format!("it says that its id is {}", snapshot.id)));
        }
        snapshot.validate().map_err(|e| e.found_in(object))?;
        Ok(snapshot)
    }

    /// The snapshot object's bytes; fields that this version does not know included.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and string-keyed maps only: serialising them cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// [`Snapshot::to_json`] with a checksum among the properties: what is stored under `snapshot-<id>`.
    #[must_use]
    pub fn to_sealed_json(&self) -> Vec<u8> {
        let mut sealed = self.clone();
        sealed.properties.get_or_insert_default().insert(SUM.to_owned(), OPEN.to_owned());
        let mut bytes = sealed.to_json();
        if let Some(digits) = digits_in(&bytes) {
            let sum = sum_of(&bytes, &digits);
            if let Some(place) = bytes.get_mut(digits) {
                place.copy_from_slice(sum.as_bytes());
            }
        }
        bytes
    }

    /// Checks what every reader relies on.
    ///
    /// # Errors
    /// Invalid names the field; Unsupported a newer layout.
    pub fn validate(&self) -> Result<()> {
        if self.version > CURRENT_SNAPSHOT_VERSION {
            let remedy = "use a Siltstone that knows this version";
            return Err(FormatError::unsupported(format!("snapshot version {}", self.version), remedy));
        }
        let counts = [
            ("id", Some(self.id.0.saturating_sub(1))),
            ("version", Some(i64::from(self.version) - 1)),
            ("schemaId", Some(self.schema_id.0)),
            ("baseManifestListSize", self.base_manifest_list_size),
            ("deltaManifestListSize", self.delta_manifest_list_size),
            ("changelogManifestListSize", self.changelog_manifest_list_size),
            ("totalRecordCount", self.total_record_count),
            ("changelogRecordCount", self.changelog_record_count),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, value)| value.is_some_and(|v| v < 0)) {
            return Err(FormatError::invalid(format!("snapshot field {field}"), "is too small"));
        }
        let names = [
            ("baseManifestList", Some(&self.base_manifest_list)),
            ("deltaManifestList", Some(&self.delta_manifest_list)),
            ("changelogManifestList", self.changelog_manifest_list.as_ref()),
            ("indexManifest", self.index_manifest.as_ref()),
            ("statistics", self.statistics.as_ref()),
        ];
        match names.iter().find(|(_, name)| name.is_some_and(|n| n.is_empty() || n.contains('/'))) {
            Some((field, _)) => {
                Err(FormatError::invalid(format!("snapshot field {field}"), "must be a file name without path"))
            }
            None => Ok(()),
        }
    }
}

/// The first snapshot that a consumer (`consumer/consumer-<id>`) still has to read: expiry keeps it and all later ones.
///
/// # Errors
/// Corrupt when the object is not `{"nextSnapshot": N}`.
pub fn consumer_position(object: &str, bytes: &[u8]) -> Result<SnapshotId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Consumer {
        next_snapshot: SnapshotId,
    }
    let consumer: Consumer = serde_json::from_slice(bytes).map_err(|e| FormatError::corrupt(object, e.to_string()))?;
    Ok(consumer.next_snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const JAVA: &str = r#"{
  "version" : 3, "uuid" : "7d1f", "id" : 7, "schemaId" : 0, "baseManifestList" : "manifest-list-a-0", "baseManifestListSize" : 1020,
  "deltaManifestList" : "manifest-list-a-1", "deltaManifestListSize" : 884, "changelogManifestList" : null, "commitUser" : "u",
  "commitIdentifier" : 9223372036854775807, "commitKind" : "APPEND", "timeMillis" : 1700000000000, "totalRecordCount" : 12,
  "deltaRecordCount" : -3, "watermark" : -9223372036854775808, "properties" : {"a": "b"}, "nextRowId" : 0,
  "operation" : "WRITE", "logOffsets" : {"0": 12345678901234567890}, "ratio": 0.1 }"#;

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let snapshot = Snapshot::from_json("t/snapshot/snapshot-7", JAVA.as_bytes()).unwrap();
        assert_eq!(snapshot.commit_identifier, CommitIdentifier(i64::MAX));
        assert_eq!((snapshot.watermark, snapshot.delta_record_count), (Some(i64::MIN), Some(-3)));
        let bytes = snapshot.to_json();
        let mut given: serde_json::Value = serde_json::from_str(JAVA).unwrap();
        given.as_object_mut().unwrap().remove("changelogManifestList");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(), given);
        assert_eq!(Snapshot::from_json("snapshot-7", &bytes).unwrap(), snapshot);
    }

    #[test]
    fn broken_snapshots_are_named() {
        for (from, to, words) in [
            ("\"id\" : 7", "\"id\" : 8", "its id is 8"),
            ("\"id\" : 7", "\"id\" : -7", "its id is -7"),
            ("manifest-list-a-0", "a/b", "baseManifestList"),
            ("manifest-list-a-1", "", "deltaManifestList"),
            ("1020", "-1", "baseManifestListSize"),
            ("APPEND", "MERGE", "MERGE"),
            ("\"schemaId\" : 0,", "", "schemaId"),
            ("\"id\" : 7", "\"id\" : \"7\"", "expected i64"),
        ] {
            let error =
                Snapshot::from_json("t/snapshot/snapshot-7", JAVA.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let newer = JAVA.replacen("\"version\" : 3", "\"version\" : 4", 1);
        assert_eq!(Snapshot::from_json("snapshot-7", newer.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn consumers_say_where_they_are() {
        assert_eq!(consumer_position("c", br#"{"nextSnapshot": 7, "x": 1}"#), Ok(SnapshotId(7)));
        assert_eq!(consumer_position("c", b"{}").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    /// A tag is a snapshot with two fields of its own.
    #[test]
    fn tags_read_as_snapshots_and_keep_their_own_fields() {
        let tag = JAVA.replacen(
            "\"ratio\": 0.1",
            "\"tagCreateTime\": [2024,1,2,3,4,5,6], \"tagTimeRetained\": 86400.000000000",
            1,
        );
        let snapshot = Snapshot::from_json("t/tag/tag-v1", tag.as_bytes()).unwrap();
        assert!(snapshot.other.contains_key("tagCreateTime"));
        assert_eq!(Snapshot::from_json("t/tag/tag-v1", &snapshot.to_json()).unwrap(), snapshot);
    }

    #[test]
    fn no_bit_of_a_sealed_snapshot_changes_unseen_and_copies_are_read_without_looking() {
        let snapshot = Snapshot::from_json("t/snapshot/snapshot-7", JAVA.as_bytes()).unwrap();
        let sealed = snapshot.to_sealed_json();
        assert!(is_sealed(&sealed) && !is_sealed(JAVA.as_bytes()));
        assert_eq!(Snapshot::from_json("t/snapshot/snapshot-7", &sealed).unwrap(), snapshot);
        let key = digits_in(&sealed).unwrap().start - SUM.len() - 4..digits_in(&sealed).unwrap().start;
        for bit in (0..sealed.len() * 8).filter(|bit| !key.contains(&(bit / 8))) {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Snapshot::from_json("t/snapshot/snapshot-7", &changed).is_err(), "bit {bit}");
        }
        let pretty = serde_json::to_vec_pretty(&serde_json::from_slice::<serde_json::Value>(&sealed).unwrap()).unwrap();
        assert_eq!(Snapshot::from_json("t/tag/tag-v1", &pretty).unwrap(), snapshot);
    }

    #[test]
    fn a_seal_that_is_cut_off_is_none() {
        let sealed = Snapshot::from_json("t/snapshot/snapshot-7", JAVA.as_bytes()).unwrap().to_sealed_json();
        let digits = digits_in(&sealed).unwrap();
        assert!(is_sealed(&sealed[..digits.end]) && !is_sealed(&sealed[..digits.end - 1]));
    }

    #[test]
    fn versions_that_are_missing_or_impossible_read_as_java_reads_them() {
        let read =
            |text: &str| Snapshot::from_json("snapshot-7", JAVA.replacen("\"version\" : 3,", text, 1).as_bytes());
        assert_eq!(read("").unwrap().version, 3);
        assert!(read("\"version\" : 0,").unwrap_err().to_string().contains("version"));
    }

    #[test]
    fn snapshots_larger_than_any_are_refused() {
        let padded = |length: usize| {
            Snapshot::from_json("snapshot-7", &[JAVA.as_bytes(), &vec![b' '; length - JAVA.len()]].concat())
        };
        assert!(padded(MAX_SNAPSHOT_BYTES).is_ok());
        assert!(padded(MAX_SNAPSHOT_BYTES + 1).unwrap_err().to_string().contains("more than a snapshot has"));
    }

    #[test]
    fn truncated_snapshots_never_panic() {
        for end in 0..JAVA.len() {
            assert!(Snapshot::from_json("snapshot-7", &JAVA.as_bytes()[..end]).is_err());
        }
    }
}
