//! A table's objects and items as they are at one time, and places over copies of them that cost nothing to make.
//!
//! Above: `main`. Invariant: 1. a state never changes: what a place writes lies on top of it, and is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use siltstone_store::{
    ids::SeededIds,
    item::{Item, ItemCondition, ItemStore, query_all},
    memory::{ManualClock, MemoryItemStore, MemoryObjectStore},
    object::{ETag, ListPage, Object, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload, list_all},
};
use siltstone_table::{Authority, Ports, TableRef};

/// All that is stored for a table.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) objects: Arc<BTreeMap<String, Object>>,
    pub(crate) items: Vec<Item>,
    pub(crate) now: i64,
}

/// What differs from a state.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Changes(pub(crate) BTreeMap<String, Option<Bytes>>);

/// A bucket over a state that is never copied: what is written lies on top. It remembers which keys were read.
#[derive(Debug)]
pub(crate) struct Layered {
    base: Arc<BTreeMap<String, Object>>,
    top: MemoryObjectStore,
    /// Keys that are not the base's any more.
    changed: Mutex<BTreeSet<String>>,
    pub(crate) read: Mutex<BTreeSet<String>>,
}

impl Layered {
    pub(crate) fn new(base: Arc<BTreeMap<String, Object>>, clock: Arc<ManualClock>) -> Self {
        let top = MemoryObjectStore::with_clock("lake", clock);
        Self { base, top, changed: Mutex::default(), read: Mutex::default() }
    }

    /// The object below, unless it was written over or deleted.
    pub(crate) fn below(&self, key: &str) -> Option<&Object> {
        self.read.lock().unwrap().insert(key.to_owned());
        if self.changed.lock().unwrap().contains(key) { None } else { self.base.get(key) }
    }

    pub(crate) async fn changes(&self) -> Changes {
        let keys = self.changed.lock().unwrap().clone();
        let mut changes = BTreeMap::new();
        for key in keys {
            let now = self.top.get(&key).await.ok().map(|o| o.bytes);
            changes.insert(key, now);
        }
        Changes(changes)
    }
}

#[async_trait]
impl ObjectStore for Layered {
    fn bucket(&self) -> &str {
        self.top.bucket()
    }
    async fn get(&self, key: &str) -> ObjectResult<Object> {
        match self.below(key) {
            Some(object) => Ok(object.clone()),
            None => self.top.get(key).await,
        }
    }
    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        match self.below(key) {
            Some(object) => Ok(object.bytes.slice(range.start as usize..range.end as usize)),
            None => self.top.get_range(key, range).await,
        }
    }
    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        match self.below(key) {
            Some(object) => Ok(object.meta.clone()),
            None => self.top.head(key).await,
        }
    }
    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        if mode != PutMode::Overwrite
            && let Some(object) = self.below(key)
        {
            let there = MemoryObjectStore::new();
            there.put(key, object.bytes.clone(), PutMode::Overwrite).await?;
            there.put(key, bytes.clone(), mode).await?;
        } else if mode != PutMode::Overwrite {
            self.top.put(key, bytes.clone(), mode).await?;
        }
        self.changed.lock().unwrap().insert(key.to_owned());
        self.top.put(key, bytes, PutMode::Overwrite).await
    }
    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        self.changed.lock().unwrap().insert(key.to_owned());
        self.top.upload(key).await
    }
    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        let mut metas: BTreeMap<String, ObjectMeta> = BTreeMap::new();
        for (key, object) in self.base.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if self.below(key).is_some() {
                metas.insert(key.clone(), object.meta.clone());
            }
        }
        metas.extend(list_all(&self.top, prefix).await?.into_iter().map(|meta| (meta.key.clone(), meta)));
        let mut rest = metas.into_values().filter(|meta| start_after.is_none_or(|after| meta.key.as_str() > after));
        let objects = rest.by_ref().take(limit).collect();
        Ok(ListPage { objects, more: rest.next().is_some() })
    }
    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        self.top.list_dirs(prefix).await
    }
    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        self.changed.lock().unwrap().extend(keys.iter().cloned());
        self.top.delete(keys).await
    }
}

/// A copy of a state to work on.
pub(crate) struct Place {
    pub(crate) ports: Ports,
    pub(crate) at: TableRef,
    pub(crate) authority: Authority,
    pub(crate) store: Arc<Layered>,
    pub(crate) clock: Arc<ManualClock>,
}

impl State {
    pub(crate) async fn of(ports: &Ports, at: &TableRef) -> Self {
        let mut objects = BTreeMap::new();
        for meta in list_all(ports.objects.as_ref(), &format!("{}/", at.location())).await.unwrap() {
            objects.insert(meta.key.clone(), ports.objects.get(&meta.key).await.unwrap());
        }
        let items = query_all(ports.items.as_ref(), &at.partition(), "").await.unwrap();
        Self { objects: Arc::new(objects), items, now: ports.clock.now_ms() }
    }

    pub(crate) async fn place(&self, at: &TableRef, authority: Authority, damage: &Changes) -> Place {
        let clock = Arc::new(ManualClock::new(self.now));
        let (store, items) = (Arc::new(Layered::new(self.objects.clone(), clock.clone())), MemoryItemStore::new());
        for (key, bytes) in &damage.0 {
            match bytes {
                Some(bytes) => drop(store.put(key, bytes.clone(), PutMode::Overwrite).await.unwrap()),
                None => store.delete(std::slice::from_ref(key)).await.unwrap(),
            }
        }
        for item in &self.items {
            items.put(item, ItemCondition::None).await.unwrap();
        }
        let ids = Arc::new(SeededIds::new(99));
        let ports = Ports { objects: store.clone(), items: Arc::new(items), clock: clock.clone(), ids };
        Place { ports, at: at.clone(), authority, store, clock }
    }
}

impl Place {
    /// Whether nothing but the damage itself differs from the state.
    pub(crate) async fn is_untouched(&self, state: &State, damage: &Changes) -> bool {
        let items = query_all(self.ports.items.as_ref(), &self.at.partition(), "").await.unwrap();
        let changes = self.store.changes().await;
        // An upload that was begun and aborted leaves nothing.
        let changes = changes.0.into_iter().filter(|(key, now)| now.is_some() || state.objects.contains_key(key));
        items == state.items && Changes(changes.collect()) == *damage
    }
}
