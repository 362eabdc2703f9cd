//! Newtypes for the numbers that name things in a table. `Display` is the form used in paths and messages.
//!
//! Neighbours: every module of this crate and all crates above use these instead of bare integers.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// Id of a snapshot: 1, 2, 3, ... without gaps between the earliest and the latest.
    SnapshotId(i64)
);
number!(
    /// Id of a schema file: 0, 1, 2, ... without gaps.
    SchemaId(i64)
);
number!(
    /// Id of a column; unique over the table's life, nested row fields included.
    FieldId(i32)
);
number!(
    /// Number of a bucket inside its partition, from 0.
    Bucket(i32)
);
number!(
    /// Level of a data file in its bucket's LSM tree; 0 is the newest and may overlap.
    Level(i32)
);
number!(
    /// Position of a row version in its bucket's history: among rows of one key the larger number is newer.
    SequenceNumber(i64)
);
number!(
    /// Identifier of a commit, growing per commit user.
    CommitIdentifier(i64)
);

impl SnapshotId {
    /// The first snapshot of any table.
    pub const FIRST: Self = Self(1);

    /// The id that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Level {
    /// The level that ingest writes to.
    pub const ZERO: Self = Self(0);
}
