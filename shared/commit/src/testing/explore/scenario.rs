//! Who runs on which table: small tables, up to three actors, one question each.
//!
//! Neighbours: `mod` explores them, `fixture` makes tables and changes. Everything in a table is an hour old and more when the actors begin,
//! so that expiry may take all but the newest snapshot.
//! Invariant: 1. the rows that must be in the table once all is done are those there at the beginning and those of the batches (1).

use std::collections::BTreeSet;

use siltstone_format::{
    id::{Bucket, Level, SchemaId, SequenceNumber, SnapshotId},
    manifest::ManifestEntry,
};

use super::{
    Running,
    history::{Answer, running},
};
use crate::{
    changes::{Change, ChangeId, ChangeKind, CommitReport},
    codec,
    context::{Authority, TableContext},
    error::ErrorKind,
    io::{Effect, ItemName, Machine},
    manifests::Scope,
    protocol::{self, ExpireOptions, RollbackTarget, SweepOptions},
    sequence::first_of,
    testing::{
        engines::{self, Engine},
        fixture,
        world::World,
    },
};

const HOUR: i64 = 3_600_000;

/// Someone who runs a protocol once.
pub struct Actor {
    pub(super) name: String,
    pub(super) start: Box<dyn Fn() -> Running>,
    /// What it commits.
    pub(super) change: Option<Change>,
    /// The shard, and the position up to which it must be covered in the end.
    pub(super) batch: Option<(u32, u64)>,
    /// Whether it runs again, if it was not acknowledged, once all are gone.
    pub(super) again: bool,
}

/// A table and its actors.
pub struct Scenario {
    /// Name.
    pub name: String,
    /// What is asked.
    pub about: &'static str,
    pub(super) context: TableContext,
    pub(super) world: World,
    pub(super) actors: Vec<Actor>,
    /// Pairs of actors that differ by names only.
    pub(super) twins: Vec<(usize, usize)>,
    /// Writes of runs before that are still under way.
    pub(super) late: Vec<Effect>,
    /// Answers that may be lost, late or echoed, all actors together.
    pub faults: usize,
    /// Whether the table must hold the newest row of each key that ever came: not after a rollback.
    pub(super) oracle: bool,
    /// Errors that are right here, besides those that say "try again later".
    pub(super) expected: &'static [ErrorKind],
}

impl Scenario {
    pub(super) fn new(name: &str, about: &'static str, (context, world): (TableContext, World)) -> Self {
        let name = name.to_owned();
        let (actors, twins, late) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, about, context, world, actors, twins, late, faults: 0, oracle: true, expected: &[] }
    }

    /// (shard, position) of every row that must come.
    pub(super) fn needed_rows(&self) -> BTreeSet<(u32, u64)> {
        let batches = self.actors.iter().filter_map(|actor| actor.batch);
        let rows = batches.flat_map(|(shard, to)| (1..=to).map(move |position| (shard, position)));
        self.world.monitor.witnessed().iter().copied().chain(rows).collect()
    }

    /// (shard, position) of the rows that may come or be refused for good.
    pub(super) fn possible_rows(&self) -> BTreeSet<(u32, u64)> {
        let files = self.actors.iter().filter_map(|actor| actor.change.as_ref()).flat_map(|change| &change.files);
        let bodies = files.filter_map(|entry| {
            let key = codec::bucket_file(&self.context, entry, &entry.file.file_name).ok()?;
            self.world.objects.get(&key).map(|object| object.body.clone())
        });
        bodies.flat_map(|body| fixture::rows(&body)).map(|row| (row.shard, row.position)).collect()
    }

    pub(super) fn with<T: 'static>(
        mut self,
        name: &str,
        answer: fn(T) -> Answer,
        machine: impl Fn(&TableContext) -> Machine<T> + 'static,
    ) -> Self {
        let context = self.context.clone();
        let start = Box::new(move || running(machine(&context), answer));
        self.actors.push(Actor { name: name.to_owned(), start, change: None, batch: None, again: true });
        self
    }

    fn commits(self, name: &str, change: Change) -> Self {
        let committed = change.clone();
        // Without patience it races to the end: the clock stands still here, and waiting would never be over.
        let race = move |c: &TableContext| protocol::commit_until(c, committed.clone(), None, 0);
        let mut with = self.with(name, |report: CommitReport| Answer::Outcome(report.outcome), race);
        if let Some(actor) = with.actors.last_mut() {
            actor.change = Some(change);
        }
        with
    }

    /// A writer with positions `from+1 ..= to` of a shard, files written just now.
    fn writes(mut self, name: &str, shard: u32, from: Option<u64>, to: u64) -> Self {
        let above = last_number(&self.world);
        let change = fixture::batch(&mut self.world, &self.context, shard, from, to, above);
        self.writes_change(name, shard, to, change)
    }

    fn writes_change(self, name: &str, shard: u32, to: u64, change: Change) -> Self {
        let mut with = self.commits(name, change);
        if let Some(actor) = with.actors.last_mut() {
            actor.batch = Some((shard, to));
        }
        with
    }

    /// A compaction of some live files of bucket 1 into one of a level.
    fn compacts(mut self, name: &str, level: i32, files: std::ops::Range<usize>) -> Self {
        let change = compaction(&mut self.world, &self.context, name, level, files);
        self.commits(name, change)
    }

    fn expires(self) -> Self {
        let options = ExpireOptions { retain_min: 1, retain_max: 1, ..ExpireOptions::default() };
        self.with("expiry", |_| Answer::Done, move |c| protocol::expire(c, options.clone()))
    }

    fn sweeps(self) -> Self {
        let options = SweepOptions { dry_run: false, ..SweepOptions::default() };
        self.with("sweep", |_| Answer::Done, move |c| protocol::sweep(c, options.clone()))
    }

    fn reads(self, engine: Engine) -> Self {
        self.with(engine.as_str(), |_| Answer::Done, move |c| engines::latest(c, engine))
    }

    fn reserves(self, shard: u32) -> Self {
        self.with(
            &format!("shard {shard}"),
            |_| Answer::Done,
            move |c| protocol::reserve_slot(c, fixture::shard(shard)),
        )
    }

    /// Another engine's append: through the names of snapshots only, once.
    fn appends_foreign(mut self) -> Self {
        let row = fixture::Row { key: 100, sequence: 7, shard: 77, position: 1 };
        let file = fixture::data_file(&mut self.world, &self.context, None, 0, 0, &[row]);
        let mut change = Change::new(ChangeId::derive("foreign"), ChangeKind::Append, SchemaId(0), self.world.now_ms);
        change.files.push(file);
        let bare = TableContext { authority: Authority::Bare, ..self.context.clone() };
        let committed = change.clone();
        let mut with = self.with("foreign", |_| Answer::Done, move |_| protocol::commit(&bare, committed.clone()));
        if let Some(actor) = with.actors.last_mut() {
            actor.change = Some(change);
            actor.again = false;
        }
        with
    }

    fn twins(mut self, first: usize, second: usize) -> Self {
        self.twins.push((first, second));
        self
    }

    const fn faulty(mut self, faults: usize) -> Self {
        self.faults = faults;
        self
    }
}

/// Every scenario.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    let mut all = vec![
        commits(),
        redelivery(),
        publication(),
        sweep_of_old_files(),
        sweep_beside_commits(),
        reshard(),
        late_parent(),
        foreign(),
        slots(),
        compactions_of_one_level(),
        compactions_of_the_same_files(),
        rollback(),
        restored_pointer(),
        lost_pointer(),
    ];
    all.extend(Engine::ALL.map(readers));
    all
}

fn commits() -> Scenario {
    let about = "two writers and an expiry: one snapshot after the other, names and files that go";
    Scenario::new("commits", about, old_table())
        .writes("writer 1", 1, None, 1)
        .writes("writer 2", 2, None, 1)
        .expires()
        .twins(0, 1)
}

fn redelivery() -> Scenario {
    let about =
        "one batch delivered twice, and once more re-cut: each record once, whatever answer is lost, late or echoed";
    Scenario::new("redelivery", about, old_table())
        .writes("delivery 1", 1, None, 1)
        .writes("delivery 2", 1, None, 1)
        .writes("wider", 1, None, 2)
        .twins(0, 1)
        .faulty(1)
}

fn publication() -> Scenario {
    let about = "an author died between commit and publication; the batch comes again beside another one, and is read";
    let (context, mut world) = old_table();
    let above = last_number(&world);
    let dead = fixture::batch(&mut world, &context, 1, None, 1, above);
    world.stop_before(protocol::commit(&context, dead.clone()), "publish/1");
    Scenario::new("publication", about, (context, world))
        .commits("delivery 2", dead)
        .writes("writer 2", 2, None, 1)
        .reads(Engine::Java)
        .faulty(1)
}

fn sweep_of_old_files() -> Scenario {
    let about = "a batch whose files are older than the sweep's cutoff is committed twice while the sweep runs";
    let (context, mut world) = old_table();
    let above = last_number(&world);
    let old = fixture::batch(&mut world, &context, 1, None, 1, above);
    world.now_ms += 48 * HOUR;
    Scenario::new("sweep-old", about, (context, world))
        .writes_change("writer", 1, 1, old.clone())
        .writes_change("again", 1, 1, old)
        .sweeps()
        .twins(0, 1)
        .faulty(1)
}

fn sweep_beside_commits() -> Scenario {
    let about = "orphans are swept while a batch is committed and snapshots expire";
    let (context, mut world) = old_table();
    fixture::batch(&mut world, &context, 9, None, 1, SequenceNumber(0));
    world.now_ms += 48 * HOUR;
    Scenario::new("sweep-young", about, (context, world)).writes("writer", 1, None, 1).expires().sweeps()
}

fn reshard() -> Scenario {
    let about = "a zombie of a parent's last batch, the first batch of its child, and the release of the parent's slot";
    let (context, mut world) = old_table();
    let above = last_number(&world);
    let last = fixture::batch(&mut world, &context, 1, None, 1, above);
    world.ok(protocol::reserve_slot(&context, fixture::shard(1)));
    world.ok(protocol::commit(&context, last.clone()));
    let mut child = fixture::batch(&mut world, &context, 2, None, 1, last.ranges[0].last_sequence);
    child.ranges[0].parents = vec![fixture::shard(1)];
    Scenario::new("reshard", about, (context, world))
        .commits("zombie of the parent", last)
        .writes_change("child", 2, 1, child)
        .with("release", |_| Answer::Done, protocol::release_slots)
        .faulty(1)
}

fn late_parent() -> Scenario {
    let about = "a child begins while a batch of its parent is under way: one comes too late, or the child's numbers are too low";
    let (context, mut world) = old_table();
    let above = last_number(&world);
    let first = fixture::batch(&mut world, &context, 1, None, 1, above);
    world.ok(protocol::commit(&context, first.clone()));
    let mut child = fixture::batch(&mut world, &context, 2, None, 1, first.ranges[0].last_sequence);
    child.ranges[0].parents = vec![fixture::shard(1)];
    world.now_ms += 1_000;
    let last = fixture::batch(&mut world, &context, 1, Some(1), 2, first.ranges[0].last_sequence);
    Scenario::new("late-parent", about, (context, world))
        .commits("parent", last)
        .writes_change("child", 2, 1, child)
        .writes("writer", 3, None, 1)
}

fn foreign() -> Scenario {
    let about = "another engine commits by the names of snapshots, as the bucket policy lets it: never over ours";
    // Rows of a foreign snapshot in place of ours came by no commit that the monitor saw.
    let plain = Scenario::new("foreign", about, old_table());
    let scenario = Scenario { oracle: false, expected: &[ErrorKind::Forked], ..plain };
    scenario.appends_foreign().writes("writer 1", 1, None, 1).writes("writer 2", 2, None, 1).twins(1, 2)
}

fn slots() -> Scenario {
    let about = "two shards reserve slots while those of a closed one are released";
    let (context, mut world) = old_table();
    for n in [1, 2] {
        let above = last_number(&world);
        let mut batch = fixture::batch(&mut world, &context, n, None, 1, above);
        batch.ranges[0].parents = if n == 2 { vec![fixture::shard(1)] } else { Vec::new() };
        world.ok(protocol::reserve_slot(&context, fixture::shard(n)));
        world.ok(protocol::commit(&context, batch));
    }
    Scenario::new("slots", about, (context, world))
        .reserves(3)
        .reserves(4)
        .with("release", |_| Answer::Done, protocol::release_slots)
        .twins(0, 1)
        .faulty(2)
}

fn compactions_of_one_level() -> Scenario {
    let about = "two compactions of different files into one level, and an append";
    Scenario::new("compactions-level", about, four_runs())
        .compacts("compaction 1", 3, 0..2)
        .compacts("compaction 2", 3, 2..4)
        .writes("writer", 1, None, 1)
}

fn compactions_of_the_same_files() -> Scenario {
    let about = "two compactions that share a file, and an append";
    Scenario::new("compactions-shared", about, four_runs())
        .compacts("compaction 1", 3, 0..3)
        .compacts("compaction 2", 4, 2..4)
        .writes("writer", 1, None, 1)
        .faulty(1)
}

fn rollback() -> Scenario {
    let about = "a rollback beside a writer and an expiry that would take its target";
    let id = ChangeId::derive("rollback");
    let target = RollbackTarget::Snapshot(SnapshotId(2));
    let start = move |c: &TableContext| protocol::rollback(c, target.clone(), id);
    // An expiry that came first has taken the target: that is refused as invalid input.
    let scenario = Scenario {
        oracle: false,
        expected: &[ErrorKind::InvalidInput],
        ..Scenario::new("rollback", about, old_table())
    };
    scenario.with("rollback", Answer::Outcome, start).writes("writer", 1, None, 1).expires()
}

fn restored_pointer() -> Scenario {
    let about = "the pointer is one of before a sweep and a commit: two restores, and a writer whose files were swept";
    let (context, mut world) = old_table();
    let above = last_number(&world);
    // Numbers that a restored floor does not reach: it is the files alone that are wrong.
    let high = first_of(world.now_ms + 96 * HOUR);
    let swept = fixture::batch(&mut world, &context, 2, None, 1, high);
    world.now_ms += 48 * HOUR;
    let old = world.items.clone();
    let batch = fixture::batch(&mut world, &context, 1, None, 1, above);
    world.ok(protocol::commit(&context, batch));
    world.ok(protocol::sweep(&context, SweepOptions { dry_run: false, ..SweepOptions::default() }));
    world.items = old;
    world.now_ms += HOUR;
    let expected = &[ErrorKind::Forked];
    let scenario = Scenario { expected, ..Scenario::new("restored-pointer", about, (context, world)) };
    restores(scenario).writes_change("writer", 2, 1, swept)
}

fn lost_pointer() -> Scenario {
    let about = "the pointer is lost: two restores, a writer that finds no table, and a swap that is still under way";
    let (context, mut world) = old_table();
    let above = last_number(&world);
    let under_way = fixture::batch(&mut world, &context, 1, None, 1, above);
    let swap = world.stop_before(protocol::commit(&context, under_way), "commit/6");
    world.items.remove(&ItemName::Pointer);
    let scenario = restores(Scenario::new("lost-pointer", about, (context, world))).writes("writer", 2, None, 1);
    Scenario { late: vec![swap.effect], ..scenario }
}

fn restores(scenario: Scenario) -> Scenario {
    let restore = |_| Answer::Done;
    scenario.with("restore 1", restore, protocol::restore).with("restore 2", restore, protocol::restore).twins(0, 1)
}

fn readers(engine: Engine) -> Scenario {
    let about =
        "an engine looks for the latest snapshot while one is committed and old ones expire; LATEST is far behind";
    let (context, mut world) = old_table();
    world.put(&context.location.latest_hint(), "1");
    Scenario::new(&format!("latest-{}", engine.as_str()), about, (context, world))
        .writes("writer", 1, None, 1)
        .expires()
        .reads(engine)
        .faulty(1)
}

/// Four snapshots, an hour apart: two appends, a compaction of bucket 1, an append.
pub(super) fn old_table() -> (TableContext, World) {
    let (context, mut world) = appends(2);
    let change = compaction(&mut world, &context, "old", 5, 0..2);
    world.ok(protocol::commit(&context, change));
    world.now_ms += HOUR;
    append(&mut world, &context, 3);
    world.now_ms += HOUR;
    (context, world)
}

/// Four runs of bucket 1 that share keys.
fn four_runs() -> (TableContext, World) {
    appends(4)
}

/// So many snapshots of shard 0, each with a run in either bucket.
fn appends(count: u64) -> (TableContext, World) {
    let context = fixture::context();
    let mut world = World::new(&context, 1);
    world.ok(protocol::create(&context, None));
    for n in 1..=count {
        append(&mut world, &context, n);
        world.now_ms += HOUR;
    }
    (context, world)
}

fn append(world: &mut World, context: &TableContext, n: u64) {
    let above = last_number(world);
    let change = fixture::batch(world, context, 0, (n > 1).then_some((n - 1) * 4), n * 4, above);
    world.ok(protocol::commit(context, change));
}

fn compaction(
    world: &mut World,
    context: &TableContext,
    name: &str,
    level: i32,
    files: std::ops::Range<usize>,
) -> Change {
    let snapshot = world.monitor.read_pointer(world).and_then(|p| p.snapshot).unwrap_or_else(|| panic!("no snapshot"));
    let live = world.ok(protocol::live_files(context, snapshot, Scope::Everything));
    let mut inputs: Vec<ManifestEntry> = live.into_iter().filter(|e| e.bucket == Bucket(1)).collect();
    inputs.sort_by_key(|e| e.file.min_sequence_number);
    fixture::compaction(world, context, name, &inputs[files], Level(level))
}

pub(super) fn last_number(world: &World) -> SequenceNumber {
    let pointer = world.monitor.read_pointer(world);
    let recent = pointer.iter().flat_map(|p| p.checkpoints.recent());
    recent.map(|(_, c)| c.last_sequence).max().unwrap_or(SequenceNumber(0))
}
