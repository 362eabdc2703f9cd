//! Typed effects with the patience that is safe for each: what every protocol uses instead of bare requests.
//!
//! Neighbours: `io` below, `protocol` above. Throttling and 409 wrote nothing, so they are repeated; an unknown answer is repeated only where a
//! second time is harmless (reads, deletes, objects under a fresh unique name). Conditional writes come back as they are: their protocol decides.
//!
//! Invariants: 1. no conditional write is repeated here after an unknown answer; 2. every wait is a `Pause` effect; 3. repetitions are bounded.

use bytes::Bytes;

use crate::{
    error::CommitError,
    io::{
        Effect, Failure, FailureKind, Io, ItemName, ItemRecord, Object, ObjectHead, PutMode, Reply, STAGE_PARTS,
        StagedName,
    },
    steps::{self, StepName},
};

/// Repetitions of one effect before the protocol gives up.
pub(crate) const TRIES: u32 = 6;
/// Reads that are open side by side; each may hold a manifest of some MB.
const SIDE_BY_SIDE: usize = 16;
/// Keys per delete and per page, as S3.
const PAGE: usize = 1_000;

impl Io {
    /// Performs effects that may be repeated, together, and repeats those that failed for now.
    async fn settle_all(
        &self,
        step: StepName,
        effects: Vec<Effect>,
    ) -> Result<Vec<Result<Reply, Failure>>, CommitError> {
        let mut results: Vec<Option<Result<Reply, Failure>>> = effects.iter().map(|_| None).collect();
        for attempt in 1..=TRIES {
            let open: Vec<usize> =
                (0..effects.len()).filter(|i| results.get(*i).is_some_and(Option::is_none)).collect();
            let batch: Vec<Effect> = open.iter().filter_map(|i| effects.get(*i).cloned()).collect();
            for (index, reply) in open.into_iter().zip(self.ask_all(step, batch).await?) {
                let done = match reply {
                    Reply::Failed(failure) if is_transient(failure.kind) && attempt < TRIES => None,
                    Reply::Failed(failure) => Some(Err(failure)),
                    reply => Some(Ok(reply)),
                };
                if let Some(place) = results.get_mut(index) {
                    *place = done;
                }
            }
            if results.iter().all(Option::is_some) {
                break;
            }
            self.pause(attempt).await;
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// One request for one effect, one combined request for several.
    async fn ask_all(&self, step: StepName, mut effects: Vec<Effect>) -> Result<Vec<Reply>, CommitError> {
        if effects.len() <= 1 {
            return Ok(match effects.pop() {
                Some(effect) => vec![self.ask(step, effect).await],
                None => Vec::new(),
            });
        }
        let wanted = effects.len();
        match self.ask(step, Effect::All(effects)).await {
            Reply::All(replies) if replies.len() == wanted => Ok(replies),
            Reply::Failed(failure) => Ok(vec![Reply::Failed(failure); wanted]),
            _ => Err(unfit(step)),
        }
    }

    async fn settle(&self, step: StepName, target: &str, effect: Effect) -> Result<Reply, CommitError> {
        match self.settle_all(step, vec![effect]).await?.pop() {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(failure)) => Err(CommitError::effect(step, target, failure)),
            None => Err(unfit(step)),
        }
    }

    pub(crate) async fn pause(&self, attempt: u32) {
        self.ask(steps::BACK_OFF, Effect::Pause { attempt }).await;
    }

    pub(crate) async fn now(&self, step: StepName) -> Result<i64, CommitError> {
        match self.ask(step, Effect::Now).await {
            Reply::Now(ms) => Ok(ms),
            _ => Err(unfit(step)),
        }
    }

    pub(crate) async fn uuid(&self, step: StepName) -> Result<String, CommitError> {
        match self.ask(step, Effect::Uuid).await {
            Reply::Uuid(uuid) => Ok(uuid),
            _ => Err(unfit(step)),
        }
    }

    pub(crate) async fn load_item(&self, step: StepName, name: ItemName) -> Result<Option<ItemRecord>, CommitError> {
        match self.settle(step, &name.to_string(), Effect::LoadItem(name)).await? {
            Reply::Item(record) => Ok(record),
            _ => Err(unfit(step)),
        }
    }

    pub(crate) async fn wait(&self, step: StepName, ms: i64) {
        self.ask(step, Effect::Wait { ms: u64::try_from(ms).unwrap_or(0) }).await;
    }

    /// Every staged item, part by part.
    pub(crate) async fn list_staged(&self, step: StepName) -> Result<Vec<(StagedName, ItemRecord)>, CommitError> {
        let page = |part, start_after| Effect::ListStaged { part, start_after, limit: PAGE };
        let mut open: Vec<(u8, Option<StagedName>)> = (0..STAGE_PARTS).map(|part| (part, None)).collect();
        let mut all = Vec::new();
        while !open.is_empty() {
            let effects = open.iter().map(|(part, after)| page(*part, *after)).collect();
            let mut next = Vec::new();
            for ((part, _), result) in open.into_iter().zip(self.settle_all(step, effects).await?) {
                match result {
                    Ok(Reply::Items { items, more }) => {
                        let last = items.last().map(|(name, _)| *name);
                        next.extend(last.filter(|_| more).map(|last| (part, Some(last))));
                        all.extend(items);
                    }
                    Err(failure) => {
                        return Err(CommitError::effect(step, format!("staged items, part {part}"), failure));
                    }
                    Ok(_) => return Err(unfit(step)),
                }
            }
            open = next;
        }
        Ok(all)
    }

    /// Performs writes of items together, each once. What becomes of them decides nothing.
    pub(crate) async fn try_all(&self, step: StepName, effects: Vec<Effect>) -> Result<(), CommitError> {
        self.ask_all(step, effects).await?;
        Ok(())
    }

    pub(crate) async fn get(&self, step: StepName, key: String) -> Result<Option<Object>, CommitError> {
        Ok(self.get_all(step, vec![key]).await?.pop().flatten())
    }

    /// Objects that must be there.
    pub(crate) async fn get_needed(&self, step: StepName, keys: Vec<String>) -> Result<Vec<Object>, CommitError> {
        let names = keys.clone();
        let objects = self.get_all(step, keys).await?;
        let missing =
            |key: String| CommitError::effect(step, key, Failure::new(FailureKind::NotFound, "no such object"));
        objects.into_iter().zip(names).map(|(object, key)| object.ok_or_else(|| missing(key))).collect()
    }

    /// Objects, `None` where there is none.
    pub(crate) async fn get_all(&self, step: StepName, keys: Vec<String>) -> Result<Vec<Option<Object>>, CommitError> {
        let mut objects = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(SIDE_BY_SIDE) {
            let effects = chunk.iter().map(|key| Effect::Get { key: key.clone() }).collect();
            for (result, key) in self.settle_all(step, effects).await?.into_iter().zip(chunk) {
                objects.push(match result {
                    Ok(Reply::Object(object)) => Some(object),
                    Err(failure) if failure.kind == FailureKind::NotFound => None,
                    Err(failure) => return Err(CommitError::effect(step, key, failure)),
                    Ok(_) => return Err(unfit(step)),
                });
            }
        }
        Ok(objects)
    }

    /// Metadata of objects, `None` where there is none.
    pub(crate) async fn head_all(
        &self,
        step: StepName,
        keys: &[String],
    ) -> Result<Vec<Option<ObjectHead>>, CommitError> {
        let mut heads = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(SIDE_BY_SIDE) {
            let effects = chunk.iter().map(|key| Effect::Head { key: key.clone() }).collect();
            for (result, key) in self.settle_all(step, effects).await?.into_iter().zip(chunk) {
                heads.push(match result {
                    Ok(Reply::Head(head)) => Some(head),
                    Err(failure) if failure.kind == FailureKind::NotFound => None,
                    Err(failure) => return Err(CommitError::effect(step, key, failure)),
                    Ok(_) => return Err(unfit(step)),
                });
            }
        }
        Ok(heads)
    }

    /// The tip: one object read and another one looked for, together.
    pub(crate) async fn get_and_head(
        &self,
        step: StepName,
        get: String,
        head: String,
    ) -> Result<(Option<Object>, bool), CommitError> {
        let target = get.clone();
        let mut results =
            self.settle_all(step, vec![Effect::Get { key: get }, Effect::Head { key: head }]).await?.into_iter();
        let object = match results.next() {
            Some(Ok(Reply::Object(object))) => Some(object),
            Some(Err(failure)) if failure.kind == FailureKind::NotFound => None,
            Some(Err(failure)) => return Err(CommitError::effect(step, target, failure)),
            _ => return Err(unfit(step)),
        };
        match results.next() {
            Some(Ok(Reply::Head(_))) => Ok((object, true)),
            Some(Err(failure)) if failure.kind == FailureKind::NotFound => Ok((object, false)),
            Some(Err(failure)) => Err(CommitError::effect(step, target, failure)),
            _ => Err(unfit(step)),
        }
    }

    /// Writes objects under names that nobody else uses, together.
    pub(crate) async fn put_new(&self, step: StepName, objects: Vec<(String, Bytes)>) -> Result<(), CommitError> {
        let keys: Vec<String> = objects.iter().map(|(key, _)| key.clone()).collect();
        let effects =
            objects.into_iter().map(|(key, body)| Effect::Put { key, body, mode: PutMode::Overwrite }).collect();
        for (result, key) in self.settle_all(step, effects).await?.into_iter().zip(keys) {
            result.map_err(|failure| CommitError::effect(step, key, failure))?;
        }
        Ok(())
    }

    /// Copies objects under names that nobody else uses.
    pub(crate) async fn copy_all(&self, step: StepName, pairs: Vec<(String, String)>) -> Result<(), CommitError> {
        for chunk in pairs.chunks(SIDE_BY_SIDE) {
            let effects = chunk.iter().map(|(from, to)| Effect::Copy { from: from.clone(), to: to.clone() }).collect();
            for (result, (from, _)) in self.settle_all(step, effects).await?.into_iter().zip(chunk) {
                result.map_err(|failure| CommitError::effect(step, from, failure))?;
            }
        }
        Ok(())
    }

    /// One conditional put: waits out throttling and 409, and hands back anything else.
    pub(crate) async fn put_if(&self, step: StepName, key: &str, body: &Bytes, mode: &PutMode) -> Result<(), Failure> {
        let mut last = Failure::new(FailureKind::Unavailable, "not tried");
        for attempt in 1..=TRIES {
            let effect = Effect::Put { key: key.to_owned(), body: body.clone(), mode: mode.clone() };
            match self.ask(step, effect).await {
                Reply::Failed(failure) if wrote_nothing(failure.kind) => last = failure,
                Reply::Failed(failure) => return Err(failure),
                _ => return Ok(()),
            }
            self.pause(attempt).await;
        }
        Err(last)
    }

    pub(crate) async fn delete(&self, step: StepName, keys: &[String]) -> Result<(), CommitError> {
        for chunk in keys.chunks(PAGE) {
            let target = chunk.first().cloned().unwrap_or_default();
            self.settle(step, &target, Effect::Delete { keys: chunk.to_vec() }).await?;
        }
        Ok(())
    }

    /// Every object below a prefix.
    pub(crate) async fn list(&self, step: StepName, prefix: String) -> Result<Vec<ObjectHead>, CommitError> {
        let mut all: Vec<ObjectHead> = Vec::new();
        loop {
            let (page, more) = self.page(step, &prefix, all.last().map(|o| o.key.clone())).await?;
            all.extend(page);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Some objects below a prefix, after a key, and whether more follow them.
    pub(crate) async fn page(
        &self,
        step: StepName,
        prefix: &str,
        start_after: Option<String>,
    ) -> Result<(Vec<ObjectHead>, bool), CommitError> {
        let effect = Effect::List { prefix: prefix.to_owned(), start_after, limit: PAGE };
        match self.settle(step, prefix, effect).await? {
            Reply::Listed { objects, more } => {
                let more = more && !objects.is_empty();
                Ok((objects, more))
            }
            _ => Err(unfit(step)),
        }
    }
}

/// Nothing was written: the same conditional write may be sent again.
pub(crate) const fn wrote_nothing(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Conflict | FailureKind::Throttled | FailureKind::Unavailable)
}

const fn is_transient(kind: FailureKind) -> bool {
    wrote_nothing(kind) || matches!(kind, FailureKind::Unknown)
}

pub(crate) fn unfit(step: StepName) -> CommitError {
    CommitError::bug(format!("{step}: the reply does not fit the request"))
}
