//! The demo's source database: TPC-H orders as a Debezium change stream, and the oracle of what the table must hold.
//!
//! Neighbours: `demo` produces what [`OrderChanges`] yields; the final comparison asks [`Oracle`]. Independent of Siltstone's own code on
//! purpose: no type of the table format, decoder or engine is used here.
//! Invariants: 1. equal seeds give equal streams; 2. `change_id` is unique per change and grows, so that the changelog can bear
//! witness that each change arrived once; 3. one followed order goes O, F, deleted.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::OnceLock,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tpchgen::{
    distribution::Distributions,
    generators::{Order, OrderGenerator, OrderGeneratorIterator},
    text::TextPool,
};

/// Name of the demo's table.
pub(crate) const TABLE: &str = "demo.orders";

/// Columns of the demo's table: name and Paimon type.
pub(crate) const COLUMNS: [(&str, &str); 11] = [
    ("o_orderkey", "BIGINT NOT NULL"),
    ("o_custkey", "BIGINT"),
    ("o_orderstatus", "STRING"),
    ("o_totalprice", "DECIMAL(12, 2)"),
    ("o_orderdate", "DATE"),
    ("o_orderpriority", "STRING"),
    ("o_clerk", "STRING"),
    ("o_shippriority", "INT"),
    ("o_comment", "STRING"),
    ("change_id", "BIGINT"),
    ("updated_at", "TIMESTAMP(3)"),
];

/// A row of the source database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderRow {
    pub(crate) key: i64,
    pub(crate) customer: i64,
    pub(crate) status: &'static str,
    pub(crate) cents: i64,
    /// Days since 1970.
    pub(crate) date: i32,
    pub(crate) priority: String,
    pub(crate) clerk: String,
    pub(crate) ship_priority: i32,
    pub(crate) comment: String,
    pub(crate) change_id: i64,
    pub(crate) updated_ms: i64,
}

impl OrderRow {
    fn new(order: &Order<'_>, change_id: i64, now_ms: i64) -> Self {
        Self {
            key: order.o_orderkey,
            customer: order.o_custkey,
            status: "O",
            cents: order.o_totalprice.into_inner(),
            date: order.o_orderdate.to_unix_epoch(),
            priority: order.o_orderpriority.to_owned(),
            clerk: order.o_clerk.to_string(),
            ship_priority: order.o_shippriority,
            comment: order.o_comment.to_owned(),
            change_id,
            updated_ms: now_ms,
        }
    }

    /// The row as Debezium writes it: decimals as text, dates in days, timestamps in ms.
    fn image(&self) -> Value {
        json!({
            "o_orderkey": self.key, "o_custkey": self.customer, "o_orderstatus": self.status,
            "o_totalprice": format!("{}.{:02}", self.cents / 100, self.cents % 100), "o_orderdate": self.date,
            "o_orderpriority": self.priority, "o_clerk": self.clerk, "o_shippriority": self.ship_priority,
            "o_comment": self.comment, "change_id": self.change_id, "updated_at": self.updated_ms,
        })
    }

    /// The cells in the order of [`COLUMNS`], in the plain text that `silt scan` and pypaimon are compared by.
    pub(crate) fn cells(&self) -> Vec<String> {
        vec![
            self.key.to_string(),
            self.customer.to_string(),
            self.status.to_owned(),
            self.cents.to_string(),
            self.date.to_string(),
            self.priority.clone(),
            self.clerk.clone(),
            self.ship_priority.to_string(),
            self.comment.clone(),
            self.change_id.to_string(),
            self.updated_ms.to_string(),
        ]
    }
}

/// One change, ready to be produced.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: i64,
    /// Debezium JSON.
    pub(crate) payload: Vec<u8>,
    /// The row after the change; `None` for a delete.
    pub(crate) after: Option<OrderRow>,
}

/// An endless, seeded stream of changes over TPC-H orders.
pub(crate) struct OrderChanges {
    rng: SmallRng,
    orders: OrderGeneratorIterator<'static>,
    part: i32,
    live: VecDeque<OrderRow>,
    followed: Option<OrderRow>,
    next_id: i64,
}

/// Comments are cut from a pool of generated text; one megabyte is plenty and takes milliseconds to make.
fn text_pool() -> &'static TextPool {
    static POOL: OnceLock<TextPool> = OnceLock::new();
    POOL.get_or_init(|| TextPool::new(1 << 20, Distributions::static_default()))
}

const PARTS: i32 = 64;

fn orders(part: i32) -> OrderGeneratorIterator<'static> {
    let part = part.rem_euclid(PARTS) + 1;
    OrderGenerator::new_with_distributions_and_text_pool(
        10.0,
        part,
        PARTS,
        Distributions::static_default(),
        text_pool(),
    )
    .iter()
}

impl OrderChanges {
    /// A stream from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let part = rng.random_range(0..PARTS);
        Self { rng, orders: orders(part), part, live: VecDeque::new(), followed: None, next_id: 1 }
    }

    /// The next change: about 60 % inserts, 35 % updates, 5 % deletes.
    pub(crate) fn next(&mut self, now_ms: i64) -> Change {
        match self.rng.random_range(0..100) {
            60..95 if self.live.len() > 10 => self.update(now_ms),
            95.. if self.live.len() > 10 => self.delete(now_ms),
            _ => self.insert(now_ms),
        }
    }

    /// Inserts the order that the demo follows through time travel.
    pub(crate) fn follow(&mut self, now_ms: i64) -> Change {
        let row = self.new_row(now_ms);
        self.followed = Some(row.clone());
        change("c", None, Some(row), now_ms)
    }

    /// The followed order is fulfilled (O to F).
    pub(crate) fn fulfil_followed(&mut self, now_ms: i64) -> Option<Change> {
        let before = self.followed.clone()?;
        let after = OrderRow { status: "F", change_id: self.take_id(), updated_ms: now_ms, ..before.clone() };
        self.followed = Some(after.clone());
        Some(change("u", Some(before), Some(after), now_ms))
    }

    /// The followed order is deleted.
    pub(crate) fn delete_followed(&mut self, now_ms: i64) -> Option<Change> {
        let row = OrderRow { change_id: self.take_id(), ..self.followed.take()? };
        Some(change("d", Some(row), None, now_ms))
    }

    fn take_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn new_row(&mut self, now_ms: i64) -> OrderRow {
        let change_id = self.take_id();
        loop {
            if let Some(order) = self.orders.next() {
                return OrderRow::new(&order, change_id, now_ms);
            }
            self.part += 1;
            self.orders = orders(self.part);
        }
    }

    fn insert(&mut self, now_ms: i64) -> Change {
        let row = self.new_row(now_ms);
        self.live.push_back(row.clone());
        change("c", None, Some(row), now_ms)
    }

    /// Old orders are fulfilled in turn; younger ones change their price.
    fn update(&mut self, now_ms: i64) -> Change {
        let place = self.rng.random_range(0..self.live.len());
        let cents = self.rng.random_range(100_000..50_000_000);
        let (change_id, fulfil) = (self.take_id(), self.rng.random_bool(0.5));
        let Some(row) = self.live.get_mut(place) else { return self.insert(now_ms) };
        let before = row.clone();
        *row = OrderRow {
            status: if fulfil { "F" } else { row.status },
            cents: if fulfil { row.cents } else { cents },
            change_id,
            updated_ms: now_ms,
            ..before.clone()
        };
        let after = row.clone();
        change("u", Some(before), Some(after), now_ms)
    }

    fn delete(&mut self, now_ms: i64) -> Change {
        let place = self.rng.random_range(0..self.live.len());
        let Some(row) = self.live.swap_remove_back(place) else { return self.insert(now_ms) };
        let row = OrderRow { change_id: self.take_id(), ..row };
        change("d", Some(row), None, now_ms)
    }
}

fn change(op: &str, before: Option<OrderRow>, after: Option<OrderRow>, now_ms: i64) -> Change {
    let key = after.as_ref().or(before.as_ref()).map_or(0, |row| row.key);
    let payload = json!({
        "before": before.as_ref().map(OrderRow::image), "after": after.as_ref().map(OrderRow::image),
        "source": {"connector": "postgresql", "db": "tpch", "schema": "public", "table": "orders"},
        "op": op, "ts_ms": now_ms,
    });
    Change { key, payload: payload.to_string().into_bytes(), after }
}

/// What the table must hold, and which changes the changelog must show.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Live rows by key.
    pub(crate) rows: BTreeMap<i64, OrderRow>,
    /// Changes accepted by the stream.
    pub(crate) changes: u64,
}

/// The result of comparing a scan with the oracle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Keys that should be there and are not.
    pub(crate) lost: u64,
    /// Keys that were read more than once.
    pub(crate) doubled: u64,
    /// Keys with other cells than produced.
    pub(crate) wrong: u64,
    /// Keys that should not be there.
    pub(crate) extra: u64,
}

impl Oracle {
    /// Takes a change that the stream accepted.
    pub(crate) fn apply(&mut self, change: &Change) {
        self.changes += 1;
        match &change.after {
            Some(row) => self.rows.insert(change.key, row.clone()),
            None => self.rows.remove(&change.key),
        };
    }

    /// Compares rows read by someone (cells as [`OrderRow::cells`]).
    pub(crate) fn compare(&self, read: impl IntoIterator<Item = Vec<String>>) -> Difference {
        let mut difference = Difference::default();
        let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
        for cells in read {
            let key = cells.first().and_then(|c| c.parse::<i64>().ok()).unwrap_or(i64::MIN);
            let times = seen.entry(key).or_insert(0);
            *times += 1;
            match self.rows.get(&key) {
                _ if *times > 1 => difference.doubled += 1,
                None => difference.extra += 1,
                Some(row) if row.cells() != cells => difference.wrong += 1,
                Some(_) => {}
            }
        }
        difference.lost = self.rows.keys().filter(|key| !seen.contains_key(key)).count() as u64;
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_and_change_ids_grow() {
        let stream = |seed| {
            let mut changes = OrderChanges::new(seed);
            (0..500).map(|i| changes.next(i)).collect::<Vec<_>>()
        };
        let (a, b) = (stream(7), stream(7));
        assert!(a.iter().zip(&b).all(|(x, y)| x.payload == y.payload));
        let id = |change: &Change| {
            let payload: Value = serde_json::from_slice(&change.payload).unwrap();
            let image = if payload["after"].is_null() { &payload["before"] } else { &payload["after"] };
            image["change_id"].as_i64().unwrap()
        };
        assert!(a.windows(2).all(|w| id(&w[0]) < id(&w[1])));
        assert!(stream(8).iter().zip(&a).any(|(x, y)| x.payload != y.payload));
    }

    #[test]
    fn the_comparison_names_lost_doubled_wrong_and_extra_rows() {
        let mut changes = OrderChanges::new(1);
        let mut oracle = Oracle::default();
        for i in 0..5 {
            oracle.apply(&changes.follow(i));
        }
        let mut rows: Vec<_> = oracle.rows.values().map(OrderRow::cells).collect();
        assert_eq!(oracle.compare(rows.clone()), Difference::default());
        let twice = rows[0].clone();
        rows.push(twice);
        rows.remove(1);
        rows[2][2] = "X".into();
        rows.push(vec!["-5".into()]);
        assert_eq!(oracle.compare(rows), Difference { lost: 1, doubled: 1, wrong: 1, extra: 1 });
    }

    #[test]
    fn the_followed_order_is_opened_fulfilled_and_deleted() {
        let mut changes = OrderChanges::new(1);
        assert_eq!(changes.follow(1).after.unwrap().status, "O");
        assert_eq!(changes.fulfil_followed(2).unwrap().after.unwrap().status, "F");
        assert_eq!(changes.delete_followed(3).unwrap().after, None);
        assert!(changes.delete_followed(4).is_none());
    }
}
