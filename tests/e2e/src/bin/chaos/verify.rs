//! The end: what the table holds against what was produced, with the stack at rest.
//!
//! Neighbours: `source::Oracle` and `witness` know what must be there; `report` tells. Invariant: 1. nothing here writes.

use std::collections::BTreeSet;

use siltstone_commit::protocol::{Finding, Severity};
use siltstone_format::value::Value;
use siltstone_table::{
    Table, check, quarantine,
    scan::{ScanRequest, scan},
};

use crate::source::{Difference, Oracle, malformed_number};

/// What was found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub(crate) difference: Difference,
    /// Malformed records in quarantine, each counted once.
    pub(crate) quarantined: u64,
    /// Records in quarantine that are there twice, or were never sent.
    pub(crate) quarantined_wrongly: u64,
    /// What `check` and `check --deep` call errors.
    pub(crate) findings: Vec<String>,
    pub(crate) files_checked: u64,
}

pub(crate) async fn verify(table: &Table, oracle: &Oracle) -> Result<Verdict, String> {
    let mut verdict = Verdict { difference: scanned(table, oracle).await?, ..Verdict::default() };
    (verdict.quarantined, verdict.quarantined_wrongly) = quarantined(table, oracle).await?;
    let words = |e: siltstone_table::TableError| format!("the check cannot be made: {e}");
    let checked = check::check(table).await.map_err(words)?;
    let deep = check::deep(table, &checked, |_| ()).await.map_err(words)?;
    let errors = checked.findings.iter().chain(&deep.findings).filter(|f| f.severity == Severity::Error);
    verdict.findings = errors.map(Finding::to_string).collect();
    verdict.files_checked = deep.files;
    Ok(verdict)
}

async fn scanned(table: &Table, oracle: &Oracle) -> Result<Difference, String> {
    let mut comparison = oracle.compare();
    scan(table, &ScanRequest::default(), |row| {
        match row.values.as_slice() {
            [Value::BigInt(key), Value::BigInt(change), Value::String(text)] => comparison.row(*key, *change, text),
            [Value::BigInt(key), ..] => comparison.row(*key, -1, ""),
            _ => comparison.row(-1, -1, ""),
        }
        true
    })
    .await
    .map_err(|e| format!("the table cannot be scanned: {e}"))?;
    Ok(comparison.end())
}

async fn quarantined(table: &Table, oracle: &Oracle) -> Result<(u64, u64), String> {
    let read = quarantine::read(table).await.map_err(|e| format!("the quarantine cannot be read: {e}"))?;
    let (mut numbers, mut wrong) = (BTreeSet::new(), 0);
    for record in &read.records {
        let number = malformed_number(&record.data).filter(|number| (1..=oracle.malformed).contains(number));
        if !number.is_some_and(|number| numbers.insert(number)) {
            wrong += 1;
        }
    }
    Ok((numbers.len() as u64, wrong))
}
