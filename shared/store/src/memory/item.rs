//! A table of items in memory. Neighbours: `item` (the port), `contract::item` (what it must satisfy).
//! Invariant: 1. each method holds the lock once, so a conditional write decides and writes in one step.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;

use super::lock;
use crate::item::{
    Attr, Item, ItemCondition, ItemContext, ItemError, ItemPage, ItemResult, ItemStore, check_attribute, check_item,
    check_item_key,
};

type Items = Arc<Mutex<BTreeMap<(String, String), Item>>>;

/// A table in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryItemStore {
    table: String,
    items: Items,
}

impl Default for MemoryItemStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryItemStore {
    /// An empty table named `memory`.
    pub fn new() -> Self {
        Self { table: "memory".to_owned(), items: Items::default() }
    }

    fn context(&self, operation: &'static str, key: &(String, String), reason: &str) -> Box<ItemContext> {
        ItemContext::new(operation, &self.table, &key.0, &key.1, reason)
    }

    fn check(
        &self,
        operation: &'static str,
        key: &(String, String),
        condition: ItemCondition,
        current: Option<&Item>,
    ) -> ItemResult<()> {
        if condition.holds(current) {
            return Ok(());
        }
        let context = self.context(operation, key, "condition failed");
        Err(ItemError::ConditionFailed { context, current: current.cloned() })
    }
}

fn key_of(partition: &str, sort: &str) -> (String, String) {
    (partition.to_owned(), sort.to_owned())
}

#[async_trait]
impl ItemStore for MemoryItemStore {
    fn table(&self) -> &str {
        &self.table
    }

    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
        check_item_key("get", &self.table, partition, sort)?;
        Ok(lock(&self.items).get(&key_of(partition, sort)).cloned())
    }

    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
        check_item(&self.table, item)?;
        let key = key_of(&item.partition, &item.sort);
        let mut items = lock(&self.items);
        self.check("put", &key, condition, items.get(&key))?;
        items.insert(key, item.clone());
        Ok(())
    }

    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
        check_item_key("add", &self.table, partition, sort)?;
        check_attribute("add", &self.table, partition, sort, attribute)?;
        let key = key_of(partition, sort);
        let mut items = lock(&self.items);
        let before = match items.get(&key).and_then(|item| item.attributes.get(attribute)) {
            None => 0,
            Some(Attr::N(n)) => *n,
            Some(_) => return Err(ItemError::Invalid(self.context("add", &key, "the attribute is not a number"))),
        };
        let Some(sum) = before.checked_add(delta) else {
            return Err(ItemError::Invalid(self.context("add", &key, "the sum does not fit 64 bits")));
        };
        let item = items.entry(key).or_insert_with(|| Item::new(partition, sort, 0));
        item.attributes.insert(attribute.to_owned(), Attr::N(sum));
        Ok(sum)
    }

    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
        check_item_key("delete", &self.table, partition, sort)?;
        let key = key_of(partition, sort);
        let mut items = lock(&self.items);
        self.check("delete", &key, condition, items.get(&key))?;
        items.remove(&key);
        Ok(())
    }

    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage> {
        if partition.is_empty() || limit == 0 {
            let key = key_of(partition, sort_prefix);
            return Err(ItemError::Invalid(self.context("query", &key, "the partition is empty, or the limit is 0")));
        }
        let from = match start_after {
            Some(after) if after >= sort_prefix => Bound::Excluded(key_of(partition, after)),
            _ => Bound::Included(key_of(partition, sort_prefix)),
        };
        let items = lock(&self.items);
        let mut rest = items
            .range((from, Bound::Unbounded))
            .take_while(|((p, s), _)| p == partition && s.starts_with(sort_prefix))
            .map(|(_, item)| item.clone());
        let page = rest.by_ref().take(limit).collect();
        Ok(ItemPage { items: page, more: rest.next().is_some() })
    }
}
