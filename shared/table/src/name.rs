//! Names of tables and the places that belong to one: `db.table`, its prefix, task objects, quarantine, replays.
//!
//! Neighbours: every use-case takes a [`TableRef`]; `format::path` names the objects inside the table's prefix.
//! Invariants: 1. a name never escapes its warehouse (no `/`, no `.` beyond the one separator); 2. Siltstone's own objects live under
//! `_siltstone/`, never inside the table's prefix, so that other engines' orphan cleaning leaves them alone.

use std::{fmt, str::FromStr};

use crate::error::TableError;

/// Prefix of Siltstone's own objects in a bucket.
pub const OWN_PREFIX: &str = "_siltstone";

/// A table by name: `db.table`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Database.
    pub database: String,
    /// Table in the database.
    pub table: String,
}

impl FromStr for TableName {
    type Err = TableError;

    fn from_str(text: &str) -> Result<Self, TableError> {
        let parts: Vec<&str> = text.split('.').collect();
        match parts.as_slice() {
            [database, table] if is_plain(database) && is_plain(table) => {
                Ok(Self { database: (*database).to_owned(), table: (*table).to_owned() })
            }
            _ => Err(TableError::invalid(format!(
                "`{text}` is not a table name: write it as db.table, only A to Z, a to z, digits, `_` and `-`"
            ))),
        }
    }
}

impl TableName {
    /// A table that another engine made, in a warehouse without a pointer: any name that Paimon gives a directory of its own. The database
    /// ends at the first dot.
    ///
    /// # Errors
    /// [`TableError::Invalid`] for a text without two parts, and for parts that would lead out of the warehouse.
    pub fn of_any_engine(text: &str) -> Result<Self, TableError> {
        let stays = |part: &str| !part.is_empty() && part != ".." && !part.contains(['/', '\\', '\0']);
        match text.split_once('.') {
            Some((database, table)) if stays(database) && stays(table) => {
                Ok(Self { database: database.to_owned(), table: table.to_owned() })
            }
            _ => {
                Err(TableError::invalid(format!("`{text}` is not a table name: write it as db.table, without slashes")))
            }
        }
    }
}

/// ASCII only: letters of other scripts have several spellings of one look, and AWS takes few of them in names.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.len() <= 128 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// A table in a warehouse: a prefix inside the store's bucket (empty for the bucket's root).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// Warehouse prefix without leading or trailing `/`.
    pub warehouse: String,
    /// Name.
    pub name: TableName,
}

impl TableRef {
    /// A table of `warehouse`; slashes around the prefix do not matter.
    #[must_use]
    pub fn new(warehouse: &str, name: TableName) -> Self {
        Self { warehouse: warehouse.trim_matches('/').to_owned(), name }
    }

    /// Prefix of the table's objects, without trailing `/`: `<warehouse>/<db>.db/<table>`.
    #[must_use]
    pub fn location(&self) -> String {
        self.inside(&format!("{}.db/{}", self.name.database, self.name.table))
    }

    /// Partition of the table's items in the item store.
    #[must_use]
    pub fn partition(&self) -> String {
        format!("table#{}", self.location())
    }

    /// Prefix of task objects, with trailing `/`.
    #[must_use]
    pub fn tasks(&self) -> String {
        format!("{OWN_PREFIX}/tasks/{}/", self.location())
    }

    /// Prefix of quarantine objects, with trailing `/`.
    #[must_use]
    pub fn quarantine(&self) -> String {
        format!("{OWN_PREFIX}/quarantine/{}/", self.location())
    }

    /// Prefix of the objects that say which quarantined records were replayed, with trailing `/`.
    #[must_use]
    pub fn replays(&self) -> String {
        format!("{OWN_PREFIX}/replays/{}/", self.location())
    }

    fn inside(&self, path: &str) -> String {
        if self.warehouse.is_empty() { path.to_owned() } else { format!("{}/{path}", self.warehouse) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_exactly_two_plain_parts() {
        assert_eq!("demo.orders".parse::<TableName>().unwrap().to_string(), "demo.orders");
        for bad in ["orders", "a.b.c", ".b", "a.", "a/../b.c", "a.b c", "", "shop.größen", "d.t\u{0661}"] {
            assert!(bad.parse::<TableName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_of_another_engine_has_any_name_that_stays_in_the_warehouse() {
        for good in ["demo.orders", "shop.größen", "a.b c", "a.b.c"] {
            assert_eq!(TableName::of_any_engine(good).unwrap().to_string(), good);
        }
        for bad in ["orders", ".b", "a.", "a/../b.c", "a...", "a.b/c", "a.b\\c", ""] {
            assert!(TableName::of_any_engine(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn own_objects_stay_outside_the_table() {
        let table = TableRef::new("/lake/", "demo.orders".parse().unwrap());
        assert_eq!(table.location(), "lake/demo.db/orders");
        for own in [table.tasks(), table.quarantine(), table.replays()] {
            assert!(!own.starts_with(&table.location()), "{own}");
        }
        assert_eq!(TableRef::new("", "d.t".parse().unwrap()).location(), "d.db/t");
    }
}
