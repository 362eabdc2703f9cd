//! How each kind of process starts: its sandbox, its ports, its clock, its time.
//!
//! Neighbours: `run` decides whose turn it is.

use super::{ending::name, *};

impl Run<'_> {
    pub(super) fn skew(&self, number: u64) -> i64 {
        let wide = self.profile.skew_ms;
        let mut r = self.chance.of(Decision::Ids, number ^ 0x51ce);
        i64::try_from(r.below(2 * wide + 1)).unwrap_or(0) - i64::try_from(wide).unwrap_or(0)
    }

    /// New ports, as of a cold start.
    pub(super) fn cold(&mut self) -> (Arc<Desk>, Ports, Arc<siltstone_store::retry::Retry>, Arc<dyn StreamAdmin>, i64) {
        self.spawned += 1;
        let desk = Arc::new(Desk::default());
        let seed = self.chance.of(Decision::Ids, self.spawned).draw();
        let skew_ms = self.skew(self.spawned);
        let (ports, retry, streams) = ports_of(&self.world, &desk, skew_ms, seed);
        (desk, ports, retry, streams, skew_ms)
    }

    pub(super) fn start(&mut self, role: Role, desk: Arc<Desk>, future: BoxFuture<'static, End>, lasts_ms: i64) {
        self.spawned += 1;
        let started_ms = self.world.now_ms();
        let merges = matches!(role, Role::Compact { .. });
        let process = if merges { Process::with_threads(desk, future) } else { Process::new(desk, future) };
        let mut actor = Actor {
            id: self.spawned,
            role,
            process,
            started_ms,
            deadline_ms: started_ms + lasts_ms,
            frozen_until_ms: 0,
            stale: false,
        };
        self.say(format!("#{} starts: {}", actor.id, name(&actor.role)));
        match actor.process.settle() {
            Some(end) => self.ended(actor, end),
            None => self.actors.push(actor),
        }
    }

    pub(super) fn start_ingest(&mut self, shard: usize) {
        let free = self.sandboxes.iter().find(|(_, sandbox)| !sandbox.busy).map(|(place, _)| *place);
        let place = free.unwrap_or_else(|| {
            let (desk, ports, retry, streams, skew_ms) = self.cold();
            let limits = IngestLimits {
                lateness_ms: LATENESS_MS,
                mapping_trusted_ms: Some(TRUSTED_MS),
                ..IngestLimits::default()
            };
            let ingest = Ingest::new(ports, self.at.clone(), Some(streams), limits);
            let place = usize::try_from(self.spawned).unwrap_or(0);
            self.sandboxes.insert(place, Sandbox { desk, retry, ingest: Arc::new(ingest), skew_ms, busy: false });
            place
        });
        let batch_max = self.profile.batch_max;
        let Some((handed, batch)) = self.mapping.take(shard, batch_max, &mut self.drawn) else { return };
        let Some(sandbox) = self.sandboxes.get_mut(&place) else { return };
        sandbox.busy = true;
        let deadline_ms = self.world.now_ms() + TIMEOUT_MS + sandbox.skew_ms;
        sandbox.retry.set_deadline_ms(deadline_ms);
        let (desk, warm, whole) = (sandbox.desk.clone(), sandbox.ingest.clone(), batch.clone());
        let work = async move { End::Ingest(warm.handle(&whole, deadline_ms).await) };
        let role = Role::Ingest { handed, batch, sandbox: place, current: true };
        self.start(role, desk, work.boxed(), TIMEOUT_MS);
    }

    pub(super) fn start_compact(&mut self, key: String, attempt: u32) {
        let (desk, ports, retry, _, skew_ms) = self.cold();
        let deadline_ms = self.world.now_ms() + 5 * MINUTE_MS + skew_ms;
        retry.set_deadline_ms(deadline_ms);
        let (at, task) = (self.at.clone(), key.clone());
        let limits = CompactLimits { lateness_ms: LATENESS_MS, ..CompactLimits::default() };
        let work = async move { End::Compact(task::work_off(&ports, &at, &task, &limits, deadline_ms).await) };
        self.start(Role::Compact { key, attempt }, desk, work.boxed(), 5 * MINUTE_MS);
    }

    pub(super) fn start_maintain(&mut self) {
        let (desk, ports, retry, _, skew_ms) = self.cold();
        let deadline_ms = self.world.now_ms() + 5 * MINUTE_MS + skew_ms;
        retry.set_deadline_ms(deadline_ms);
        // Nothing protects files of another engine that are older than a sweep's age when it commits: there are none where the age is minutes.
        let sweep_young = self.profile.foreign == 0 && self.drawn.per_mille(500);
        let work = actors::maintain(ports, self.at.clone(), self.mappings.clone(), sweep_young, deadline_ms);
        self.start(Role::Maintain, desk, work.map(End::Maintain).boxed(), 5 * MINUTE_MS);
    }

    pub(super) fn start_foreign(&mut self) {
        self.foreign += 1;
        let (desk, ports, ..) = self.cold();
        let work = actors::foreign(ports, self.at.clone(), self.foreign);
        self.start(Role::Foreign(self.foreign), desk, work.map(End::Foreign).boxed(), 5 * MINUTE_MS);
    }

    pub(super) fn start_repair(&mut self) {
        let (desk, ports, ..) = self.cold();
        let work = actors::repair(ports, self.at.clone());
        self.start(Role::Repair, desk, work.map(End::Repair).boxed(), 15 * MINUTE_MS);
    }
}
