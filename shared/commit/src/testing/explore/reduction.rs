//! Which effects need no interleaving, and the proof, gathered while exploring, that they did not (design record 0021).
//!
//! Neighbours: `mod` performs a quiet effect at once and tells [`Shared`] of every effect; a key on which two actors turn out to depend
//! is loud in the next round, until a round finds none.
//! Invariants: 1. what the monitor looks at (items, snapshots, hints) is never written quietly; 2. a round counts only if no quiet effect of
//! it depends on anything that another actor did in it.

use std::collections::{BTreeMap, BTreeSet};

use siltstone_format::path::ObjectName;

use crate::{
    context::TableContext,
    io::{Effect, FailureKind, ItemName, PutMode, Reply, staged_suffix},
};

/// Who is told to have done a write that arrived late: nobody, since it has no order even with its own author.
pub(super) const LATE: usize = 31;

/// Actors, one bit each.
type Actors = u32;

#[derive(Default, Clone, Copy)]
struct Use {
    quiet_readers: Actors,
    /// Those among them that found nothing.
    missed: Actors,
    quiet_writers: Actors,
    /// Puts that are not quiet, and deletes.
    loud_writers: Actors,
}

/// What the actors of a scenario share.
#[derive(Default)]
pub(super) struct Shared {
    /// Keys, and prefixes of listings, on which effects have to be interleaved.
    loud: BTreeSet<String>,
    uses: BTreeMap<String, Use>,
    listings: BTreeMap<String, (Actors, Actors)>,
}

impl Shared {
    /// How many keys and prefixes are interleaved.
    pub(super) fn len(&self) -> usize {
        self.loud.len()
    }

    /// True if the effect may be performed as soon as its actor asks for it.
    pub(super) fn quiet(&self, context: &TableContext, effect: &Effect) -> bool {
        match effect {
            Effect::Now | Effect::Uuid | Effect::Pause { .. } | Effect::Wait { .. } => true,
            Effect::ListStaged { part, .. } => !self.loud.contains(&staged_suffix(*part)),
            Effect::Get { key } | Effect::Head { key } => !self.loud.contains(key),
            Effect::List { prefix, .. } => !self.loud.contains(prefix),
            Effect::Put { key, mode: PutMode::Overwrite, .. } => self.quiet_write(context, key),
            Effect::Copy { from, to } => !self.loud.contains(from) && self.quiet_write(context, to),
            _ => false,
        }
    }

    fn quiet_write(&self, context: &TableContext, key: &str) -> bool {
        let watched = matches!(
            context.location.parse(context.shape.data_directory.as_deref(), key),
            ObjectName::Snapshot(_) | ObjectName::LatestHint | ObjectName::EarliestHint
        );
        !watched && !self.loud.contains(key)
    }

    /// Notes an effect of an actor and its answer.
    pub(super) fn note(&mut self, context: &TableContext, actor: usize, effect: &Effect, reply: &Reply) {
        let (me, quiet) = (1 << actor, self.quiet(context, effect));
        match effect {
            Effect::Get { key } | Effect::Head { key } if quiet => {
                let found = !matches!(reply, Reply::Failed(f) if f.kind == FailureKind::NotFound);
                let used = self.of(key);
                used.quiet_readers |= me;
                used.missed |= if found { 0 } else { me };
            }
            Effect::List { prefix, .. } => {
                let (all, unheard) = self.listings.entry(prefix.clone()).or_default();
                *all |= me;
                *unheard |= if quiet { me } else { 0 };
            }
            Effect::Put { key, .. } => self.note_write(key, me, quiet),
            Effect::Copy { from, to } => {
                if quiet {
                    self.of(from).quiet_readers |= me;
                }
                self.note_write(to, me, quiet);
            }
            Effect::Delete { keys } => keys.iter().for_each(|key| self.note_write(key, me, false)),
            Effect::ListStaged { part, .. } if quiet => self.of(&staged_suffix(*part)).quiet_readers |= me,
            Effect::CreateItem { name, .. }
            | Effect::SwapItem { name, .. }
            | Effect::PutItem { name, .. }
            | Effect::DeleteItem { name, .. } => {
                if let ItemName::Staged(staged) = name {
                    self.note_write(&staged_suffix(staged.part()), me, false);
                }
            }
            _ => {}
        }
    }

    fn note_write(&mut self, key: &str, me: Actors, quiet: bool) {
        let used = self.of(key);
        if quiet {
            used.quiet_writers |= me;
        } else {
            used.loud_writers |= me;
        }
    }

    fn of(&mut self, key: &str) -> &mut Use {
        if !self.uses.contains_key(key) {
            self.uses.insert(key.to_owned(), Use::default());
        }
        self.uses.entry(key.to_owned()).or_default()
    }

    /// Ends a round. True if another one is needed: something that was taken for quiet was not.
    pub(super) fn learn(&mut self) -> bool {
        let before = self.loud.len();
        let uses = std::mem::take(&mut self.uses);
        for (prefix, (listers, unheard)) in std::mem::take(&mut self.listings) {
            let below = uses.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            for (key, used) in below {
                if disturbs(used.quiet_writers, listers) {
                    self.loud.insert(key.clone());
                }
                if disturbs(used.quiet_writers | used.loud_writers, unheard) {
                    self.loud.insert(prefix.clone());
                }
            }
        }
        for (key, used) in uses {
            // A reader that found what a quiet writer made knew its name from a later write of that writer: no other order exists.
            let read = disturbs(used.loud_writers, used.quiet_readers) || disturbs(used.quiet_writers, used.missed);
            let others = used.quiet_writers | used.loud_writers;
            if read || disturbs(others, used.quiet_writers) {
                self.loud.insert(key);
            }
        }
        self.loud.len() > before
    }
}

/// Whether one of `some` is another actor than one of `others`.
const fn disturbs(some: Actors, others: Actors) -> bool {
    some != 0 && others != 0 && (some | others).count_ones() > 1
}
