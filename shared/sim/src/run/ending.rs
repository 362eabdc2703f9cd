//! What an ended process says, and who hears it.
//!
//! Neighbours: `run` decides whose turn it is.

use super::*;

impl Run<'_> {
    pub(super) fn ended(&mut self, actor: Actor, end: End) {
        let failure = match &end {
            End::Ingest(Err(e))
            | End::Compact(Err(e))
            | End::Maintain(Err(e))
            | End::Foreign(Err(e))
            | End::Repair(Err(e)) => Some(e),
            _ => None,
        };
        match failure {
            Some(error) => self.failed(&actor, error),
            None => self.succeeded(&actor, &end),
        }
        if let Role::Ingest { sandbox, .. } = &actor.role
            && let Some(sandbox) = self.sandboxes.get_mut(sandbox)
        {
            sandbox.busy = false;
        }
    }

    pub(super) fn failed(&mut self, actor: &Actor, error: &TableError) {
        self.say(format!("#{} failed: {error}", actor.id));
        self.count("failures");
        self.give_up(actor);
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Conflict => {}
            ErrorKind::Forked => {
                self.repair_ms.get_or_insert(self.world.now_ms() + MINUTE_MS);
            }
            // A process that slept while its files expired.
            ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid
                if actor.stale || self.behind || actor.started_ms <= self.repaired_ms => {}
            _ => {
                let age = self.world.now_ms() - actor.started_ms;
                self.world.violate(format!("{} failed after {age} ms: {error}", name(&actor.role)));
            }
        }
    }

    pub(super) fn succeeded(&mut self, actor: &Actor, end: &End) {
        match (&actor.role, end) {
            (Role::Ingest { handed, batch, current, .. }, End::Ingest(Ok(report))) => {
                self.say(format!("#{} ok: {} changes, snapshot {:?}", actor.id, report.changes, report.snapshot));
                self.count("batches");
                self.acknowledged(batch, report);
                if *current {
                    let handed = handed.clone();
                    self.mapping.succeeded(&handed, &mut self.drawn);
                }
            }
            (_, End::Compact(Ok(Fate::Done(_)))) => self.count("compactions"),
            (_, End::Compact(Ok(Fate::Leased))) => self.count("leased tasks"),
            (_, End::Maintain(Ok(report))) => {
                self.say(format!(
                    "#{} ok: expired {}, swept {}, {:?}",
                    actor.id, report.expired, report.orphans, report.failures
                ));
                self.count("maintenances");
                *self.history.done.entry("expired").or_default() += report.expired;
                *self.history.done.entry("swept").or_default() += report.orphans;
            }
            (Role::Foreign(number), End::Foreign(Ok(true))) => {
                self.say(format!("#{} ok: another engine's row {number}", actor.id));
                self.count("foreign commits");
                self.foreign_known.insert(u64::from(*number));
            }
            (_, End::Repair(Ok(plan))) => {
                self.say(format!("#{} repaired: {plan:?}", actor.id));
                self.count("repairs");
                self.repair_ms = None;
                self.repaired_ms = self.world.now_ms();
                self.behind = false;
            }
            _ => {}
        }
    }

    /// 5: acknowledged is covered and published.
    pub(super) fn acknowledged(&self, batch: &StreamBatch, report: &IngestReport) {
        let Some((pointer, last)) = self.world.pointer().zip(batch.records.last()) else { return };
        let shard = siltstone_commit::checkpoint::ShardId::new(&batch.shard).unwrap_or_else(|e| panic!("{e}"));
        let position = last.sequence.parse().unwrap_or_else(|e| panic!("{e:?}"));
        let covered = match pointer.checkpoints.get(&shard) {
            Lookup::Found(checkpoint) => checkpoint.position >= position,
            _ => false,
        };
        let published = report.snapshot.is_none_or(|id| self.world.published(id));
        if !(covered && published) {
            let what = format!(
                "invariant 5: {} up to {position} acknowledged, covered {covered}, published {published}",
                batch.shard
            );
            self.world.violate(what);
        }
    }
}

pub(super) fn name(role: &Role) -> String {
    match role {
        Role::Ingest { batch, .. } => {
            let ends = batch.records.first().zip(batch.records.last());
            let ends = ends.map_or_else(String::new, |(a, b)| format!("{}..={}", tail(&a.sequence), tail(&b.sequence)));
            format!("ingest {} {ends}", batch.shard)
        }
        Role::Compact { key, attempt } => format!("compact {key}, attempt {attempt}"),
        Role::Maintain => "maintain".to_owned(),
        Role::Foreign(number) => format!("another engine, row {number}"),
        Role::Repair => "repair".to_owned(),
    }
}

/// The digits of a sequence number that differ.
fn tail(sequence: &str) -> &str {
    let from = sequence.len().saturating_sub(6);
    sequence.get(from..).unwrap_or(sequence)
}
