//! Keys of a table's objects (paimon-format.md sections 1 and 8), and from a listed key back to what it is.
//!
//! Below: `partition` for partition directories. Neighbours: `store` puts and gets by these keys; the sweep reads them back.
//! Invariants: 1. equal to Java's keys: readers rebuild a data file's key from partition, bucket and name; 2. only
//! `snapshot-<digits>` and `schema-<digits>` count as such, whatever temporary files other engines leave beside them.

mod partition;

pub use self::partition::{DEFAULT_PARTITION_NAME, PartitionPaths};
use crate::{
    error::{FormatError, Result},
    id::{Bucket, SchemaId, SnapshotId},
};

/// Bucket number of a postponed bucket, whose directory has a name instead.
pub const POSTPONE_BUCKET: Bucket = Bucket(-2);

/// Where a table lives: a key prefix in a bucket (or a directory), without a slash at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableLocation {
    root: String,
}

/// What a key under a table's root names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectName {
    /// `schema/schema-<id>`
    Schema(SchemaId),
    /// `snapshot/snapshot-<id>`
    Snapshot(SnapshotId),
    /// `snapshot/LATEST`
    LatestHint,
    /// `snapshot/EARLIEST`
    EarliestHint,
    /// `manifest/manifest-list-...`
    ManifestList(String),
    /// `manifest/index-manifest-...`
    IndexManifest(String),
    /// `manifest/manifest-...`
    Manifest(String),
    /// `index/...`
    Index(String),
    /// `statistics/...`
    Statistics(String),
    /// `tag/tag-<name>`: the tag's name.
    Tag(String),
    /// A file in a bucket's directory: data file, changelog file or side file.
    BucketFile {
        /// Partition directories without a slash at either end, still escaped; empty on tables without partitions.
        partition_path: String,
        /// Bucket.
        bucket: Bucket,
        /// Name without path.
        file_name: String,
    },
    /// Anything else: branches, consumers, markers, temporary files, what the user put there. Never deleted by a sweep.
    Other,
}

impl TableLocation {
    /// A table at this key prefix; slashes at its ends are dropped.
    ///
    /// # Errors
    /// Invalid when nothing is left, or a segment is empty, `.` or `..`.
    pub fn new(root: &str) -> Result<Self> {
        let root = root.trim_matches('/');
        if root.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(FormatError::invalid(
                format!("table location `{root}`"),
                "must be a path without empty, `.` or `..` parts",
            ));
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Table `database.table` of a warehouse: `<warehouse>/<database>.db/<table>`; the warehouse may be empty (the bucket itself).
    ///
    /// # Errors
    /// Invalid when a name is empty or holds a slash.
    pub fn in_warehouse(warehouse: &str, database: &str, table: &str) -> Result<Self> {
        for (what, name) in [("database", database), ("table", table)] {
            if name.is_empty() || name.contains('/') {
                return Err(FormatError::invalid(format!("{what} name `{name}`"), "must not be empty or hold a slash"));
            }
        }
        Self::new(&format!("{}/{database}.db/{table}", warehouse.trim_matches('/')))
    }

    /// The key prefix, without a slash at either end.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Key of a schema.
    #[must_use]
    pub fn schema(&self, id: SchemaId) -> String {
        format!("{}/schema/schema-{id}", self.root)
    }

    /// Prefix of all schemas, for listing.
    #[must_use]
    pub fn schema_prefix(&self) -> String {
        format!("{}/schema/schema-", self.root)
    }

    /// Key of a snapshot.
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> String {
        format!("{}/snapshot/snapshot-{id}", self.root)
    }

    /// Prefix of all snapshots, for listing.
    #[must_use]
    pub fn snapshot_prefix(&self) -> String {
        format!("{}/snapshot/snapshot-", self.root)
    }

    /// Key of the hint to the latest snapshot.
    #[must_use]
    pub fn latest_hint(&self) -> String {
        format!("{}/snapshot/LATEST", self.root)
    }

    /// Key of the hint to the earliest snapshot.
    #[must_use]
    pub fn earliest_hint(&self) -> String {
        format!("{}/snapshot/EARLIEST", self.root)
    }

    /// Key of a manifest, manifest list or index manifest, all of which share one directory.
    #[must_use]
    pub fn manifest(&self, name: &str) -> String {
        format!("{}/manifest/{name}", self.root)
    }

    /// Prefix of all manifests, lists and index manifests.
    #[must_use]
    pub fn manifest_prefix(&self) -> String {
        format!("{}/manifest/", self.root)
    }

    /// Key of an index file.
    #[must_use]
    pub fn index(&self, name: &str) -> String {
        format!("{}/index/{name}", self.root)
    }

    /// Key of a statistics file.
    #[must_use]
    pub fn statistics(&self, name: &str) -> String {
        format!("{}/statistics/{name}", self.root)
    }

    /// Key of a tag.
    #[must_use]
    pub fn tag(&self, name: &str) -> String {
        format!("{}/tag/tag-{name}", self.root)
    }

    /// Prefix of all tags.
    #[must_use]
    pub fn tag_prefix(&self) -> String {
        format!("{}/tag/tag-", self.root)
    }

    /// Prefix of all consumers.
    #[must_use]
    pub fn consumer_prefix(&self) -> String {
        format!("{}/consumer/consumer-", self.root)
    }

    /// Key of a file in a bucket's directory. `data_directory` is option `data-file.path-directory`, `partition_path` from [`PartitionPaths`].
    #[must_use]
    pub fn bucket_file(
        &self,
        data_directory: Option<&str>,
        partition_path: &str,
        bucket: Bucket,
        file_name: &str,
    ) -> String {
        format!("{}/{file_name}", self.bucket_directory(data_directory, partition_path, bucket))
    }

    /// A bucket's directory, without a slash at its end.
    #[must_use]
    pub fn bucket_directory(&self, data_directory: Option<&str>, partition_path: &str, bucket: Bucket) -> String {
        let mut out = self.root.clone();
        for part in [data_directory.unwrap_or_default().trim_matches('/'), partition_path.trim_matches('/')] {
            if !part.is_empty() {
                out.push('/');
                out.push_str(part);
            }
        }
        match bucket {
            POSTPONE_BUCKET => out.push_str("/bucket-postpone"),
            Bucket(number) => out.push_str(&format!("/bucket-{number}")),
        }
        out
    }

    /// What a listed key names; [`ObjectName::Other`] for keys outside this table, too.
    #[must_use]
    pub fn parse(&self, data_directory: Option<&str>, key: &str) -> ObjectName {
        let Some(path) = key.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/')) else {
            return ObjectName::Other;
        };
        match path.split_once('/') {
            Some((directory @ ("schema" | "snapshot" | "manifest" | "index" | "statistics" | "tag"), name)) => {
                table_object(directory, name)
            }
            _ => bucket_object(data_directory, path).unwrap_or(ObjectName::Other),
        }
    }
}

fn table_object(directory: &str, name: &str) -> ObjectName {
    let owned = || name.to_owned();
    if name.is_empty() || name.contains('/') {
        return ObjectName::Other;
    }
    match directory {
        "schema" => numbered(name, "schema-").map_or(ObjectName::Other, |id| ObjectName::Schema(SchemaId(id))),
        "snapshot" if name == "LATEST" => ObjectName::LatestHint,
        "snapshot" if name == "EARLIEST" => ObjectName::EarliestHint,
        "snapshot" => parse_snapshot_name(name).map_or(ObjectName::Other, ObjectName::Snapshot),
        "manifest" if name.starts_with("manifest-list-") => ObjectName::ManifestList(owned()),
        "manifest" if name.starts_with("index-manifest-") => ObjectName::IndexManifest(owned()),
        "manifest" if name.starts_with("manifest-") => ObjectName::Manifest(owned()),
        "index" => ObjectName::Index(owned()),
        "statistics" => ObjectName::Statistics(owned()),
        "tag" => name
            .strip_prefix("tag-")
            .filter(|n| !n.is_empty())
            .map_or(ObjectName::Other, |n| ObjectName::Tag(n.to_owned())),
        _ => ObjectName::Other,
    }
}

fn bucket_object(data_directory: Option<&str>, path: &str) -> Option<ObjectName> {
    let path = match data_directory.map(|d| d.trim_matches('/')).filter(|d| !d.is_empty()) {
        Some(directory) => path.strip_prefix(directory)?.strip_prefix('/')?,
        None => path,
    };
    let (directory, file_name) = path.rsplit_once('/')?;
    let (partition_path, bucket) = directory.rsplit_once('/').unwrap_or(("", directory));
    let bucket = match bucket {
        "bucket-postpone" => POSTPONE_BUCKET,
        _ => Bucket(i32::try_from(numbered(bucket, "bucket-")?).ok()?),
    };
    let partitions_are_pairs = partition_path.is_empty() || partition_path.split('/').all(|part| part.contains('='));
    (partitions_are_pairs && !file_name.is_empty()).then(|| ObjectName::BucketFile {
        partition_path: partition_path.to_owned(),
        bucket,
        file_name: file_name.to_owned(),
    })
}

/// The id of `snapshot-<digits>`; `None` for temporary files and everything else.
#[must_use]
pub fn parse_snapshot_name(name: &str) -> Option<SnapshotId> {
    numbered(name, "snapshot-").filter(|id| *id >= 1).map(SnapshotId)
}

/// The id of `schema-<digits>`.
#[must_use]
pub fn parse_schema_name(name: &str) -> Option<SchemaId> {
    numbered(name, "schema-").map(SchemaId)
}

/// The id in a LATEST or EARLIEST hint; `None` when it is empty, garbage or not above 0 (readers then list).
#[must_use]
pub fn parse_hint(bytes: &[u8]) -> Option<SnapshotId> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    numbered(text, "").filter(|id| *id >= 1).map(SnapshotId)
}

fn numbered(name: &str, prefix: &str) -> Option<i64> {
    let digits = name.strip_prefix(prefix)?;
    let only_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // `bucket-01` or `snapshot-007` are not what any engine writes: taking them would name a second object.
    let canonical = digits == "0" || !digits.starts_with('0');
    if only_digits && canonical { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableLocation {
        TableLocation::in_warehouse("/wh/", "db", "t").unwrap()
    }

    #[test]
    fn every_object_has_the_key_of_section_1() {
        let t = table();
        assert_eq!(t.root(), "wh/db.db/t");
        assert_eq!(TableLocation::in_warehouse("", "db", "t").unwrap().root(), "db.db/t");
        assert_eq!(t.schema(SchemaId(0)), "wh/db.db/t/schema/schema-0");
        assert_eq!(t.schema_prefix(), "wh/db.db/t/schema/schema-");
        assert_eq!(t.snapshot(SnapshotId(7)), "wh/db.db/t/snapshot/snapshot-7");
        assert_eq!(t.snapshot_prefix(), "wh/db.db/t/snapshot/snapshot-");
        assert_eq!(t.latest_hint(), "wh/db.db/t/snapshot/LATEST");
        assert_eq!(t.earliest_hint(), "wh/db.db/t/snapshot/EARLIEST");
        assert_eq!(t.manifest("manifest-a-0"), "wh/db.db/t/manifest/manifest-a-0");
        assert_eq!(t.manifest_prefix(), "wh/db.db/t/manifest/");
        assert_eq!(t.index("index-a-0"), "wh/db.db/t/index/index-a-0");
        assert_eq!(t.statistics("stat-a-0"), "wh/db.db/t/statistics/stat-a-0");
        assert_eq!((t.tag("v1"), t.tag_prefix()), ("wh/db.db/t/tag/tag-v1".into(), "wh/db.db/t/tag/tag-".into()));
        assert_eq!(t.consumer_prefix(), "wh/db.db/t/consumer/consumer-");
        assert_eq!(t.bucket_file(None, "", Bucket(3), "data-a-0.parquet"), "wh/db.db/t/bucket-3/data-a-0.parquet");
        assert_eq!(t.bucket_file(Some("data"), "dt=1/", Bucket(0), "f"), "wh/db.db/t/data/dt=1/bucket-0/f");
        assert_eq!(t.bucket_directory(None, "", POSTPONE_BUCKET), "wh/db.db/t/bucket-postpone");
        assert!(
            TableLocation::new("a//b").is_err()
                && TableLocation::new("/").is_err()
                && TableLocation::new("a/../b").is_err()
        );
        assert!(
            TableLocation::in_warehouse("w", "a/b", "t").is_err() && TableLocation::in_warehouse("w", "", "t").is_err()
        );
    }

    #[test]
    fn keys_parse_back_to_what_they_name() {
        let t = table();
        let file = |p: &str, b: i32| ObjectName::BucketFile {
            partition_path: p.into(),
            bucket: Bucket(b),
            file_name: "f.parquet".into(),
        };
        let cases = [
            ("schema/schema-12", ObjectName::Schema(SchemaId(12))),
            ("snapshot/snapshot-9", ObjectName::Snapshot(SnapshotId(9))),
            ("snapshot/LATEST", ObjectName::LatestHint),
            ("snapshot/EARLIEST", ObjectName::EarliestHint),
            ("manifest/manifest-list-a-0", ObjectName::ManifestList("manifest-list-a-0".into())),
            ("manifest/manifest-a-0", ObjectName::Manifest("manifest-a-0".into())),
            ("manifest/index-manifest-a-0", ObjectName::IndexManifest("index-manifest-a-0".into())),
            ("index/index-a-0", ObjectName::Index("index-a-0".into())),
            ("statistics/stat-a-0", ObjectName::Statistics("stat-a-0".into())),
            ("tag/tag-v1", ObjectName::Tag("v1".into())),
            ("bucket-0/f.parquet", file("", 0)),
            ("dt=1/h=a%2Fb/bucket-12/f.parquet", file("dt=1/h=a%2Fb", 12)),
            ("bucket-postpone/f.parquet", file("", -2)),
        ];
        for (path, expected) in cases {
            assert_eq!(t.parse(None, &format!("wh/db.db/t/{path}")), expected, "{path}");
        }
        assert_eq!(t.parse(Some("data"), "wh/db.db/t/data/bucket-0/f.parquet"), file("", 0));
        assert_eq!(t.parse(Some("/"), "wh/db.db/t/bucket-0/f.parquet"), file("", 0));
    }

    #[test]
    fn leftovers_of_other_engines_are_never_objects_of_the_table() {
        for path in [
            "snapshot/",
            "index/",
            "index/x/a",
            "statistics/",
            "manifest/",
            "manifest/x-1",
            "branch/branch-b/bucket-0/f",
            "changelog/changelog-1",
            "snapshot/.snapshot-2.aa.tmp",
            "snapshot/snapshot-2.tmp-aa",
            "snapshot/snapshot-1aa.tmp",
            "snapshot/snapshot-",
            "snapshot/snapshot-0",
            "snapshot/snapshot-01",
            "snapshot/snapshot-+1",
            "snapshot/snapshot-99999999999999999999",
            "snapshot/x/snapshot-1",
            "schema/schema--1",
            "bucket-0/",
            "bucket-x/f",
            "bucket-0/x/f",
            "branch/branch-b/snapshot/snapshot-1",
            "notes.txt",
            "dt/bucket-0/f",
            "consumer/consumer-a",
            "tag/tag-",
            "_quarantine/a/bucket-0/f",
        ] {
            assert_eq!(table().parse(None, &format!("wh/db.db/t/{path}")), ObjectName::Other, "{path}");
        }
        assert_eq!(table().parse(None, "wh/db.db/t2/snapshot/snapshot-1"), ObjectName::Other);
        assert_eq!(table().parse(Some("data"), "wh/db.db/t/bucket-0/f"), ObjectName::Other);
    }

    #[test]
    fn names_of_schemas_are_told_from_others() {
        assert_eq!(
            (parse_schema_name("schema-0"), parse_schema_name("schema-12")),
            (Some(SchemaId(0)), Some(SchemaId(12)))
        );
        assert_eq!((parse_schema_name("schema-01"), parse_schema_name("snapshot-1")), (None, None));
    }

    #[test]
    fn hints_are_read_leniently() {
        assert_eq!(parse_hint(b"12"), Some(SnapshotId(12)));
        assert_eq!(parse_hint(b"12\n"), Some(SnapshotId(12)));
        for garbage in [b"".as_slice(), b"0", b"-1", b"x", b"\xff", b"1 2"] {
            assert_eq!(parse_hint(garbage), None);
        }
    }
}
