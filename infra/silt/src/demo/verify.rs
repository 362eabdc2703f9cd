//! The end: is what was produced what can be read? By silt's scan, by the changelog, by time travel, and by pypaimon where there is one.
//!
//! Neighbours: `source::Oracle` knows what was produced and nothing of tables.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value as Json;
use siltstone_format::value::Value;
use siltstone_local::Endpoints;
use siltstone_table::{
    Table, Version,
    filter::Filter,
    quarantine,
    scan::{ScanRequest, changelog, scan},
};

use super::source::{Difference, Oracle};
use crate::{failure::Failure, out::Steps};

/// Kind of the old image of an update; it carries the change before.
const UPDATE_BEFORE: i8 = 1;
const CHANGE_ID: usize = 9;
const STATUS: usize = 2;

/// Rows between two words on how far it is.
const TOLD_EVERY: usize = 1_000;

/// Cells of a row in the oracle's plain form.
fn cells(values: &[Value]) -> Vec<String> {
    values
        .iter()
        .map(|value| match value {
            Value::Int(n) => n.to_string(),
            Value::BigInt(n) => n.to_string(),
            Value::Decimal(n) => n.to_string(),
            Value::Date(n) => n.to_string(),
            Value::Timestamp { millis, .. } => millis.to_string(),
            Value::String(s) => s.clone(),
            Value::Null => "null".to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

/// The table's rows against the oracle.
pub(crate) async fn by_scan(table: &Table, oracle: &Oracle, steps: &Steps) -> Result<Difference, Failure> {
    let (mut rows, total) = (Vec::new(), oracle.rows.len());
    steps.show("scanning the table");
    scan(table, &ScanRequest::default(), |row| {
        rows.push(cells(&row.values));
        if rows.len().is_multiple_of(TOLD_EVERY) {
            steps.show(format!("scanning the table: {} of {total} orders", rows.len()));
        }
        true
    })
    .await?;
    Ok(oracle.compare(rows))
}

/// What the changelog bears witness to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Witness {
    /// Changes that are in it more than once, counted by how often too much.
    pub(crate) duplicates: u64,
    /// Changes that are not in it.
    pub(crate) missing: u64,
}

/// Each change that the stream took must be in the changelog once.
pub(crate) async fn by_changelog(table: &Table, oracle: &Oracle, steps: &Steps) -> Result<Witness, Failure> {
    let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
    steps.show("reading the changelog");
    changelog(table, &ScanRequest::default(), |_, row| {
        if row.kind != UPDATE_BEFORE
            && let Some(Value::BigInt(id)) = row.values.get(CHANGE_ID)
        {
            *seen.entry(*id).or_insert(0) += 1;
            if seen.len().is_multiple_of(TOLD_EVERY) {
                steps.show(format!("reading the changelog: {} of {} changes", seen.len(), oracle.changes));
            }
        }
        true
    })
    .await?;
    let duplicates = seen.values().map(|times| times - 1).sum();
    Ok(Witness { duplicates, missing: oracle.changes.saturating_sub(seen.len() as u64) })
}

/// The life of one order: snapshot and status, `None` where it is gone.
pub(crate) async fn life_of(table: &Table, key: i64) -> Result<Vec<(i64, Option<String>)>, Failure> {
    let filter = Filter::parse(&format!("o_orderkey = {key}"), &table.schema)?;
    let mut snapshots = Vec::new();
    let request = ScanRequest { filter: filter.clone(), ..ScanRequest::default() };
    changelog(table, &request, |snapshot, _| {
        if snapshots.last() != Some(&snapshot) {
            snapshots.push(snapshot);
        }
        true
    })
    .await?;
    let mut life = Vec::new();
    for snapshot in snapshots {
        let request = ScanRequest { version: Version::Snapshot(snapshot), filter: filter.clone(), limit: None };
        let mut status = None;
        scan(table, &request, |row| {
            status =
                row.values.get(STATUS).map(|v| if let Value::String(s) = v { s.clone() } else { format!("{v:?}") });
            true
        })
        .await?;
        life.push((snapshot.0, status));
    }
    Ok(life)
}

/// The quarantine: how many, and one of them in words.
pub(crate) async fn quarantined(table: &Table) -> Result<(u64, Option<String>), Failure> {
    let records = quarantine::read(table).await?.records;
    let shown = records.iter().find(|r| r.reject.column.is_some()).or(records.first());
    Ok((records.len() as u64, shown.map(crate::commands::quarantine::words)))
}

/// What pypaimon found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ByPypaimon {
    /// No Python with pypaimon here.
    NotInstalled,
    /// It could not read the table.
    Failed(String),
    /// Its rows against the oracle.
    Read(Difference),
}

/// Snippet that reads the demo's table, printing its rows as JSON lines when `dump` is set.
pub(crate) fn snippet(endpoints: &Endpoints, warehouse: &str) -> String {
    format!(
        "from pypaimon import CatalogFactory\n\
         catalog = CatalogFactory.create({{'warehouse': '{warehouse}', 's3.endpoint': '{}', 's3.access-key': 'test',\n    \
         's3.secret-key': 'test', 's3.region': 'us-east-1', 's3.path.style.access': 'true'}})\n\
         read = catalog.get_table('demo.orders').new_read_builder()\n\
         table = read.new_read().to_arrow(read.new_scan().plan().splits())\n\
         print(table.num_rows, 'orders')\n",
        endpoints.s3
    )
}

/// Turns what the snippet read into lines of cells.
const DUMP: &str = "
import json, sys
from decimal import Decimal
import datetime
epoch_day, epoch = datetime.date(1970, 1, 1), datetime.datetime(1970, 1, 1)
def cell(v):
    if v is None: return 'null'
    if isinstance(v, Decimal): return str(int(v.scaleb(2)))
    if isinstance(v, datetime.datetime): return str(round((v - epoch) / datetime.timedelta(milliseconds=1)))
    if isinstance(v, datetime.date): return str((v - epoch_day).days)
    return str(v)
for row in zip(*[c.to_pylist() for c in table.columns]):
    sys.stdout.write(json.dumps([cell(v) for v in row]) + '\\n')
";

/// A Python that has pypaimon.
async fn python() -> Option<PathBuf> {
    for candidate in [".venv/bin/python", "python3"] {
        let candidate = Path::new(candidate);
        let found = tokio::process::Command::new(candidate)
            .args(["-c", "import pypaimon"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        if found.is_ok_and(|status| status.success()) {
            return Some(candidate.to_owned());
        }
    }
    None
}

/// The table's rows as pypaimon reads them over S3, against the oracle.
pub(crate) async fn by_pypaimon(endpoints: &Endpoints, warehouse: &str, oracle: &Oracle) -> ByPypaimon {
    let Some(python) = python().await else { return ByPypaimon::NotInstalled };
    let script = format!("{}{DUMP}", snippet(endpoints, warehouse).replace("print(table.num_rows, 'orders')\n", ""));
    let output = tokio::process::Command::new(python)
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .await;
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            return ByPypaimon::Failed(text.lines().last().unwrap_or("no words").to_owned());
        }
        Err(error) => return ByPypaimon::Failed(error.to_string()),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().filter(|l| l.starts_with('[')).map(|line| {
        let cells: Vec<Json> = serde_json::from_str(line).unwrap_or_default();
        cells.into_iter().map(|c| c.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    });
    ByPypaimon::Read(oracle.compare(rows))
}
