//! What a user can ask of a table, each with its answer as text.
//!
//! Above: `main`. Below: `state`.

use siltstone_commit::{
    changes::{ChangeId, Outcome},
    manifests::Scope,
    protocol::{self, RollbackTarget},
};
use siltstone_format::id::SnapshotId;
use siltstone_table::{
    Authority, Purpose, Result, Table, Version, check,
    compact::{self, CompactRequest, Compacted},
    driver::drive,
    ingest::Ingest,
    maintain,
    scan::{ScanRequest, changelog, scan},
    settings::{CompactLimits, IngestLimits},
    state,
};

use crate::{state::Place, subject::shard, world::*};

/// What a user can ask of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Describe,
    Scan,
    ScanOldest,
    Changelog,
    Files,
    Snapshots,
    Check,
    CheckDeep,
    Compact(usize),
    Expire,
    Rollback,
    Ingest,
}

pub(crate) const VERBS: [Verb; 13] = [
    Verb::Describe,
    Verb::Scan,
    Verb::ScanOldest,
    Verb::Changelog,
    Verb::Files,
    Verb::Snapshots,
    Verb::Check,
    Verb::CheckDeep,
    Verb::Compact(0),
    Verb::Compact(1),
    Verb::Expire,
    Verb::Rollback,
    Verb::Ingest,
];

/// Longer than a name has to be old before its snapshot may expire.
pub(crate) const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// The oldest snapshot that the table still has, to which it is rolled back too.
pub(crate) const OLDEST: SnapshotId = SnapshotId(73);

impl Verb {
    pub(crate) fn is_for_bare(self) -> bool {
        !matches!(self, Self::Expire | Self::Rollback | Self::Ingest)
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Compact(_) | Self::Expire | Self::Rollback | Self::Ingest)
    }
}

pub(crate) async fn rows(table: &Table, snapshot: Option<SnapshotId>) -> Result<String> {
    let mut rows = Vec::new();
    let version = snapshot.map_or(Version::Current, Version::Snapshot);
    let request = ScanRequest { version, ..ScanRequest::default() };
    scan(table, &request, |row| {
        rows.push(format!("{:?}", row.values));
        true
    })
    .await?;
    rows.sort();
    Ok(rows.join("\n"))
}

impl Place {
    pub(crate) async fn table(&self, purpose: Purpose) -> Result<Table> {
        Table::open(&self.ports, &self.at, self.authority, purpose).await
    }

    /// The answer of a verb as text; for those that write, what was done.
    pub(crate) async fn ask(&self, verb: Verb) -> Result<String> {
        match verb {
            Verb::Describe => {
                let table = self.table(Purpose::Read).await?;
                let pointer = match self.authority {
                    Authority::Pointer => Some(table.pointer().await?),
                    Authority::Bare => None,
                };
                let current = table.snapshot(&Version::Current).await?;
                Ok(format!("{:?} {current:?} {pointer:?}", table.schema))
            }
            Verb::Scan => rows(&self.table(Purpose::Read).await?, None).await,
            Verb::ScanOldest => rows(&self.table(Purpose::Read).await?, Some(OLDEST)).await,
            Verb::Changelog => {
                let mut out = String::new();
                changelog(&self.table(Purpose::Read).await?, &ScanRequest::default(), |id, row| {
                    out += &format!("{id} {row:?}\n");
                    true
                })
                .await?;
                Ok(out)
            }
            Verb::Files => {
                let table = self.table(Purpose::Read).await?;
                let Some(snapshot) = table.snapshot(&Version::Current).await? else { return Ok(String::new()) };
                Ok(format!("{:?}", state::live_files(&table, &snapshot, Scope::Everything).await?))
            }
            Verb::Snapshots => {
                let table = self.table(Purpose::Read).await?;
                let mut out = String::new();
                for id in state::snapshot_ids(&table).await? {
                    out += &format!("{:?}\n", state::read_snapshot(&table, id).await?);
                }
                Ok(out)
            }
            Verb::Check | Verb::CheckDeep => {
                let table = self.table(Purpose::Read).await?;
                let mut checked = check::check(&table).await?;
                if verb == Verb::CheckDeep {
                    checked.findings.extend(check::deep(&table, &checked, |_| ()).await?.findings);
                }
                Ok(checked.findings.iter().map(|f| format!("{f}\n")).collect())
            }
            Verb::Compact(number) => {
                let table = self.table(Purpose::Compact).await?;
                let buckets = compact::buckets(&table).await?;
                let (partition, bucket, _) = &buckets[number];
                let limits = CompactLimits { lateness_ms: 0, ..CompactLimits::default() };
                let done =
                    compact::compact_bucket(&table, partition, *bucket, CompactRequest::Full, &limits, FAR).await?;
                Ok(match done {
                    Compacted::Done(report) => format!("{} {}", report.rows_in, report.rows_out),
                    other => format!("{other:?}"),
                })
            }
            Verb::Expire => {
                self.clock.advance(HOUR);
                let expired = maintain::expire(&self.table(Purpose::Expire).await?).await?;
                Ok(format!("{:?} {:?}", expired.snapshots, expired.keys))
            }
            Verb::Rollback => {
                let table = self.table(Purpose::Write).await?;
                let machine = protocol::rollback(&table.context, RollbackTarget::Snapshot(OLDEST), ChangeId(5));
                match drive(machine, &self.ports, &self.at).await? {
                    Outcome::Committed { snapshot, .. } => Ok(format!("{snapshot:?}")),
                    other => Ok(format!("{other:?}")),
                }
            }
            Verb::Ingest => {
                let ingest = Ingest::new(self.ports.clone(), self.at.clone(), None, IngestLimits::default());
                // A shard whose checkpoint is not in the pointer itself.
                let mut more = batch(500, &[row(1, "new"), row(77, "new")]);
                more.shard = shard(1);
                let report = ingest.handle(&more, FAR).await?;
                Ok(format!("{} {} {:?}", report.changes, report.redelivered, report.snapshot))
            }
        }
    }
}
