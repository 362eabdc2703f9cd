//! Counts over many histories: what was done, and which fault came at which step how often.
//!
//! Neighbours: the command prints it. Invariant: 1. a fault is counted where it took effect, not where it was drawn.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::run::History;

/// Sums of histories.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Histories.
    pub histories: u64,
    /// Those in which something was broken, by seed.
    pub violations: BTreeMap<u64, String>,
    /// Decisions.
    pub turns: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults by kind and step.
    pub steps: BTreeMap<(String, &'static str), u64>,
    /// What was done.
    pub done: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Adds a history.
    pub fn add(&mut self, history: &History) {
        self.histories += 1;
        self.turns += history.turns;
        if let Some(violation) = &history.violation {
            self.violations.insert(history.seed, violation.clone());
        }
        for hit in &history.hits {
            *self.faults.entry(hit.fault.name()).or_default() += 1;
            *self.steps.entry((hit.step.clone(), hit.fault.name())).or_default() += 1;
        }
        for (what, count) in &history.done {
            *self.done.entry(what).or_default() += count;
        }
    }

    /// Adds another report.
    pub fn merge(&mut self, other: Self) {
        self.histories += other.histories;
        self.turns += other.turns;
        self.violations.extend(other.violations);
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (step, count) in other.steps {
            *self.steps.entry(step).or_default() += count;
        }
        for (what, count) in other.done {
            *self.done.entry(what).or_default() += count;
        }
    }

    /// As one JSON object. `steps` is the table of fault by step.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut steps: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for ((step, fault), count) in &self.steps {
            steps.entry(step).or_default().insert(fault, *count);
        }
        json!({"histories": self.histories, "violations": self.violations.len(), "turns": self.turns, "done": self.done,
            "steps": steps, "faults": self.faults})
    }

    /// The table of fault by step, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut last = "";
        for ((step, fault), count) in &self.steps {
            let shown = if step == last { "" } else { step };
            out.push_str(&format!("{shown:<28} {fault:<14} {count:>9}\n"));
            last = step;
        }
        out
    }
}
