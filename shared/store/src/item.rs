//! The item port: one DynamoDB table with a string partition key and a string sort key.
//! Above: the pointer, reservations, leases, hints. Below: `memory` and the DynamoDB adapter; wrappers `retry`, `meter`, `memory::fault`.
//! Invariants: 1. of any number of racing conditional writes to one item at most one whose condition the others break succeeds;
//! 2. every read is strongly consistent; 3. a failed condition reports the item that failed it; 4. an item stays under [`ITEM_BYTES_MAX`].

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

/// Largest item, bytes, names included, as DynamoDB.
pub const ITEM_BYTES_MAX: usize = 400 << 10;
/// Attribute that holds [`Item::partition`].
pub const PARTITION_ATTRIBUTE: &str = "p";
/// Attribute that holds [`Item::sort`].
pub const SORT_ATTRIBUTE: &str = "s";
/// Attribute that holds [`Item::rev`].
pub const REV_ATTRIBUTE: &str = "rev";

/// One attribute value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attr {
    /// Text.
    S(String),
    /// A whole number.
    N(i64),
    /// Bytes.
    B(Bytes),
}

impl Attr {
    /// The text, if it is one.
    pub fn as_s(&self) -> Option<&str> {
        match self {
            Self::S(s) => Some(s),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_n(&self) -> Option<i64> {
        match self {
            Self::N(n) => Some(*n),
            _ => None,
        }
    }

    /// The bytes, if it is some.
    pub fn as_b(&self) -> Option<&Bytes> {
        match self {
            Self::B(b) => Some(b),
            _ => None,
        }
    }

    /// Bytes as DynamoDB counts them: UTF-8 length, raw length, and for a number one byte per two digits and one or two more.
    pub fn size(&self) -> usize {
        match self {
            Self::S(s) => s.len(),
            Self::B(b) => b.len(),
            Self::N(n) => number_size(n.unsigned_abs(), *n < 0),
        }
    }
}

fn number_size(magnitude: u64, negative: bool) -> usize {
    let mut digits = magnitude;
    while digits != 0 && digits.is_multiple_of(10) {
        digits /= 10; // trailing zeros are free
    }
    let significant = digits.checked_ilog10().map_or(1, |d| d as usize + 1);
    significant.div_ceil(2) + 1 + usize::from(negative)
}

/// One item: key, revision and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Partition key, not empty.
    pub partition: String,
    /// Sort key, not empty.
    pub sort: String,
    /// What [`ItemCondition::RevIs`] compares. The writer chooses it; 0 if the item was made by [`ItemStore::add`].
    pub rev: u64,
    /// Everything else, by name. `p`, `s` and `rev` are taken.
    pub attributes: BTreeMap<String, Attr>,
}

impl Item {
    /// An item without attributes.
    pub fn new(partition: impl Into<String>, sort: impl Into<String>, rev: u64) -> Self {
        Self { partition: partition.into(), sort: sort.into(), rev, attributes: BTreeMap::new() }
    }

    /// The same item with one more attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: Attr) -> Self {
        self.attributes.insert(name.into(), value);
        self
    }

    /// Bytes as DynamoDB counts and bills them: names and values.
    pub fn size(&self) -> usize {
        let key = PARTITION_ATTRIBUTE.len() + self.partition.len() + SORT_ATTRIBUTE.len() + self.sort.len();
        let rev = REV_ATTRIBUTE.len() + number_size(self.rev, false);
        key + rev + self.attributes.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>()
    }
}

/// Under which condition a write takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemCondition {
    /// Always.
    None,
    /// Only if there is no such item.
    Absent,
    /// Only if there is such an item and it has this revision.
    RevIs(u64),
}

impl ItemCondition {
    /// Whether the condition holds for what is there.
    pub fn holds(self, current: Option<&Item>) -> bool {
        match self {
            Self::None => true,
            Self::Absent => current.is_none(),
            Self::RevIs(rev) => current.is_some_and(|item| item.rev == rev),
        }
    }
}

/// One page of a query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemPage {
    /// Ascending by the bytes of the sort key.
    pub items: Vec<Item>,
    /// Items may follow; ask again with the last sort key as `start_after`.
    pub more: bool,
}

/// Where an item call failed, and the store's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemContext {
    /// The method, as in `put`.
    pub operation: &'static str,
    /// The table.
    pub table: String,
    /// Partition key asked for.
    pub partition: String,
    /// Sort key or sort prefix asked for.
    pub sort: String,
    /// The text of the underlying error.
    pub reason: String,
}

impl ItemContext {
    /// All fields at once.
    pub fn new(
        operation: &'static str,
        table: &str,
        partition: &str,
        sort: &str,
        reason: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self {
            operation,
            table: table.to_owned(),
            partition: partition.to_owned(),
            sort: sort.to_owned(),
            reason: reason.into(),
        })
    }
}

impl fmt::Display for ItemContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} item ({}, {}) of table {}", self.operation, self.partition, self.sort, self.table)
    }
}

/// A failed call; the variant is what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The condition did not hold. This request wrote nothing; an earlier one whose answer was lost may have.
    #[error("{context}: its condition does not hold")]
    ConditionFailed {
        /// Where.
        context: Box<ItemContext>,
        /// The item as the condition saw it; `None` if there is none.
        current: Option<Item>,
    },
    /// Throughput exceeded, or another transaction holds the item: nothing was written, wait and try again.
    #[error("{0}: the table asks to slow down; wait and try again ({reason})", reason = .0.reason)]
    Throttled(Box<ItemContext>),
    /// Time-out or lost connection: the write may or may not have happened. Read before deciding.
    #[error("{0}: no answer; it may or may not have taken effect ({reason})", reason = .0.reason)]
    Unknown(Box<ItemContext>),
    /// No permission, or no such table.
    #[error("{0}: permission denied or no such table; check the role's policy and the table name ({reason})", reason = .0.reason)]
    Denied(Box<ItemContext>),
    /// The item would exceed [`ITEM_BYTES_MAX`].
    #[error("{0}: the item is too large ({reason})", reason = .0.reason)]
    TooLarge(Box<ItemContext>),
    /// The request itself is wrong: empty key, reserved attribute name, text where a number is needed.
    #[error("{0}: the request is not valid ({reason})", reason = .0.reason)]
    Invalid(Box<ItemContext>),
    /// The table cannot answer now and said so; nothing was written.
    #[error("{0}: the table is unavailable; try again later ({reason})", reason = .0.reason)]
    Unavailable(Box<ItemContext>),
}

impl ItemError {
    /// True if the same request may be sent again without a change, provided that an unknown outcome is looked up.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Throttled(_) | Self::Unknown(_) | Self::Unavailable(_))
    }
}

/// Result of an item call.
pub type ItemResult<T> = Result<T, ItemError>;

/// One table. Every method is one request, and none retries: see `retry`.
#[async_trait]
pub trait ItemStore: Send + Sync + fmt::Debug {
    /// Name of the table, for messages.
    fn table(&self) -> &str;

    /// Reads one item, strongly consistent.
    async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>>;

    /// Replaces the whole item under a condition. `rev` is stored as given. A failed condition is `ConditionFailed` with the item
    /// that was there. Billed by the larger of the old and the new item, also when the condition fails.
    async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()>;

    /// Adds `delta` to a number and returns the sum; a missing item or attribute counts as 0. Not idempotent: never repeated after
    /// `Unknown`, so use it for hints only. Leaves `rev` alone.
    async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64>;

    /// Deletes one item under a condition. Deleting what is not there without a condition succeeds.
    async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()>;

    /// Items of one partition whose sort key begins with `sort_prefix` (empty: all), strictly after `start_after`, at most `limit`
    /// (`Invalid` if 0), strongly consistent. A page may be shorter than `limit` and still have `more` (1 MB per request).
    async fn query(
        &self,
        partition: &str,
        sort_prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ItemResult<ItemPage>;
}

/// Refuses items no table takes: empty key parts, reserved names, more than [`ITEM_BYTES_MAX`].
pub fn check_item(table: &str, item: &Item) -> ItemResult<()> {
    check_item_key("put", table, &item.partition, &item.sort)?;
    for name in item.attributes.keys() {
        check_attribute("put", table, &item.partition, &item.sort, name)?;
    }
    let size = item.size();
    if size > ITEM_BYTES_MAX {
        let reason = format!("{size} bytes, at most {ITEM_BYTES_MAX} fit");
        return Err(ItemError::TooLarge(ItemContext::new("put", table, &item.partition, &item.sort, reason)));
    }
    Ok(())
}

/// Refuses empty key parts and ones longer than DynamoDB takes (2,048 and 1,024 bytes).
pub fn check_item_key(operation: &'static str, table: &str, partition: &str, sort: &str) -> ItemResult<()> {
    if partition.is_empty() || sort.is_empty() {
        let context = ItemContext::new(operation, table, partition, sort, "a key part is empty");
        return Err(ItemError::Invalid(context));
    }
    if partition.len() > 2_048 || sort.len() > 1_024 {
        let context = ItemContext::new(operation, table, partition, sort, "a key part is too long");
        return Err(ItemError::Invalid(context));
    }
    Ok(())
}

/// Refuses the names of the key and of the revision, and the empty name.
pub fn check_attribute(
    operation: &'static str,
    table: &str,
    partition: &str,
    sort: &str,
    name: &str,
) -> ItemResult<()> {
    if name.is_empty() || [PARTITION_ATTRIBUTE, SORT_ATTRIBUTE, REV_ATTRIBUTE].contains(&name) {
        let reason = format!("attribute name {name:?} is empty or reserved");
        return Err(ItemError::Invalid(ItemContext::new(operation, table, partition, sort, reason)));
    }
    Ok(())
}

/// All items of one partition under a sort prefix, page by page. For partitions known to be small.
pub async fn query_all(store: &dyn ItemStore, partition: &str, sort_prefix: &str) -> ItemResult<Vec<Item>> {
    let mut all: Vec<Item> = Vec::new();
    loop {
        let after = all.last().map(|i| i.sort.clone());
        let page = store.query(partition, sort_prefix, after.as_deref(), 1_000).await?;
        let empty = page.items.is_empty();
        all.extend(page.items);
        if !page.more || empty {
            return Ok(all);
        }
    }
}

macro_rules! forward_item_store {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: ItemStore + ?Sized> ItemStore for $pointer<T> {
            fn table(&self) -> &str {
                (**self).table()
            }
            async fn get(&self, partition: &str, sort: &str) -> ItemResult<Option<Item>> {
                (**self).get(partition, sort).await
            }
            async fn put(&self, item: &Item, condition: ItemCondition) -> ItemResult<()> {
                (**self).put(item, condition).await
            }
            async fn add(&self, partition: &str, sort: &str, attribute: &str, delta: i64) -> ItemResult<i64> {
                (**self).add(partition, sort, attribute, delta).await
            }
            async fn delete(&self, partition: &str, sort: &str, condition: ItemCondition) -> ItemResult<()> {
                (**self).delete(partition, sort, condition).await
            }
            async fn query(
                &self,
                partition: &str,
                sort_prefix: &str,
                start_after: Option<&str>,
                limit: usize,
            ) -> ItemResult<ItemPage> {
                (**self).query(partition, sort_prefix, start_after, limit).await
            }
        }
    };
}
forward_item_store!(Arc);
forward_item_store!(Box);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_size_counts_names_values_and_half_a_byte_per_digit() {
        assert_eq!(Attr::N(0).size(), 2);
        assert_eq!(Attr::N(12_345).size(), 4);
        assert_eq!(Attr::N(-12_345).size(), 5);
        assert_eq!(Attr::N(1_000_000).size(), 2);
        let item =
            Item::new("pk", "sk", 7).with("x", Attr::S("é".into())).with("b", Attr::B(Bytes::from_static(b"123")));
        assert_eq!(item.size(), (1 + 2) + (1 + 2) + (3 + 2) + (1 + 2) + (1 + 3));
    }

    #[test]
    fn reserved_and_oversized_items_are_refused() {
        let reserved = Item::new("a", "b", 1).with("rev", Attr::N(1));
        assert!(matches!(check_item("t", &reserved), Err(ItemError::Invalid(_))));
        let large = Item::new("a", "b", 1).with("x", Attr::B(Bytes::from(vec![0; ITEM_BYTES_MAX])));
        assert!(matches!(check_item("t", &large), Err(ItemError::TooLarge(_))));
        assert!(matches!(check_item("t", &Item::new("a", "", 1)), Err(ItemError::Invalid(_))));
    }
}
