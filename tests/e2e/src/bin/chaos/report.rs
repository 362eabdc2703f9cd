//! What a run tells at its end: one line of JSON, or a table.
//!
//! Neighbours: `drive` fills it. Invariant: 1. a run in which nothing was tested is not well.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use crate::{proxy::Counts, verify::Verdict, witness::Testimony};

/// The whole run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) records: u64,
    pub(crate) injected: u64,
    pub(crate) rows: u64,
    pub(crate) snapshots: i64,
    pub(crate) stack_kills: u64,
    /// Functions that were frozen when their stack was killed.
    pub(crate) frozen: u64,
    pub(crate) splits: u64,
    pub(crate) merges: u64,
    /// All was committed within the time for it.
    pub(crate) drained: bool,
    /// From the last record, and the end of faults, until all was committed.
    pub(crate) drain_seconds: u64,
    pub(crate) counts: Counts,
    pub(crate) testimony: Testimony,
    pub(crate) verdict: Verdict,
}

impl Report {
    /// All is as it was produced, and something was tested.
    pub(crate) fn well(&self) -> bool {
        let right = self.drained
            && self.verdict.difference == Default::default()
            && self.testimony == Testimony::default()
            && (self.verdict.quarantined, self.verdict.quarantined_wrongly) == (self.injected, 0)
            && self.verdict.findings.is_empty();
        let tested = [self.records, self.rows, self.injected, self.stack_kills, self.splits + self.merges];
        let tested = tested.iter().all(|n| *n > 0) && self.counts.kills() > 0 && !self.counts.faults.is_empty();
        right && tested
    }

    pub(crate) fn json(&self) -> Value {
        let Self { verdict, testimony, counts, .. } = self;
        json!({
            "well": self.well(), "seed": self.seed, "records": self.records, "seconds": self.seconds, "rows": self.rows,
            "snapshots": self.snapshots, "requests": counts.requests, "kills": counts.kills(), "stack_kills": self.stack_kills,
            "frozen": self.frozen, "orphans_requests": counts.orphans_requests, "kills_by_step": counts.kills_by_step, "faults": counts.faults, "splits": self.splits,
            "merges": self.merges, "drained": self.drained, "drain_seconds": self.drain_seconds, "lost": verdict.difference.lost,
            "doubled": verdict.difference.doubled, "wrong": verdict.difference.wrong, "extra": verdict.difference.extra,
            "witness_duplicates": testimony.duplicates, "witness_missing": testimony.missing,
            "witness_disordered": testimony.disordered, "witness_strange": testimony.strange,
            "quarantined": verdict.quarantined, "quarantined_wrongly": verdict.quarantined_wrongly, "injected": self.injected,
            "files_checked": verdict.files_checked, "check": verdict.findings})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, testimony, counts, .. } = self;
        let mut steps: Vec<_> = counts.kills_by_step.iter().collect();
        steps.sort_by_key(|(_, kills)| std::cmp::Reverse(**kills));
        let mut table = String::new();
        for (step, kills) in steps {
            writeln!(table, "  {kills:>6}  killed after: {step}")?;
        }
        for (fault, times) in &counts.faults {
            writeln!(table, "  {times:>6}  {fault}")?;
        }
        writeln!(
            f,
            "{table}\n{} records in {} s, {} rows, {} snapshots, {} requests; seed {}\n{} kills after {} kinds of steps, {} of \
             the whole stack, {} splits, {} merges\n{} functions frozen while their stack was killed, {} requests of functions whose stack was gone\n\
             all was committed {} s after the last record",
            self.records,
            self.seconds,
            self.rows,
            self.snapshots,
            counts.requests,
            self.seed,
            counts.kills(),
            counts.kills_by_step.len(),
            self.stack_kills,
            self.splits,
            self.merges,
            self.frozen,
            counts.orphans_requests,
            self.drain_seconds
        )?;
        let difference = verdict.difference;
        writeln!(
            f,
            "table: {} lost, {} doubled, {} wrong, {} extra\nchangelog: {} duplicates, {} missing, {} out of order, {} strange\n\
             quarantine: {} of {}, {} wrong\ncheck --deep: {} files, {} errors{}",
            difference.lost,
            difference.doubled,
            difference.wrong,
            difference.extra,
            testimony.duplicates,
            testimony.missing,
            testimony.disordered,
            testimony.strange,
            verdict.quarantined,
            self.injected,
            verdict.quarantined_wrongly,
            verdict.files_checked,
            verdict.findings.len(),
            if self.drained { "" } else { "\nNOT all was committed in the time for it" }
        )?;
        verdict.findings.iter().take(20).try_for_each(|finding| writeln!(f, "  {finding}"))?;
        f.write_str(if self.well() { "All is as it was produced." } else { "NOT all is as it was produced." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Report {
        let mut counts = Counts::default();
        counts.kills_by_step.insert("ingest put snapshot".to_owned(), 1);
        counts.faults.insert("slow", 1);
        let verdict = Verdict { quarantined: 2, ..Verdict::default() };
        let (records, rows, injected, stack_kills, splits) = (10, 5, 2, 1, 1);
        Report { records, rows, injected, stack_kills, splits, drained: true, counts, verdict, ..Report::default() }
    }

    #[test]
    fn a_run_is_well_only_if_all_is_right_and_something_was_tested() {
        assert!(well().well());
        assert!(!Report { drained: false, ..well() }.well());
        assert!(!Report { stack_kills: 0, ..well() }.well());
        assert!(!Report { counts: Counts::default(), ..well() }.well());
        assert!(!Report { injected: 3, ..well() }.well());
        assert!(!Report { testimony: Testimony { missing: 1, ..Testimony::default() }, ..well() }.well());
        let verdict = Verdict { findings: vec!["a file is missing".to_owned()], ..well().verdict };
        assert!(!Report { verdict, ..well() }.well());
    }
}
