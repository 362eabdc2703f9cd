//! Ports to everything outside: objects, items, streams, event source mappings, clock and ids; with in-memory versions,
//! a file system version, retries, a request meter, and one contract suite per port (feature `contract`).
//! Above: `table` and the functions, which see only these traits. Beside: `aws`, which implements them. Below: nothing of this workspace.
//! Invariants: 1. no port retries; `retry` does, above it; 2. an error's kind says what the caller can do next;
//! 3. an unknown outcome is never reported as a failure or a success.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod buffered;
pub mod clock;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod cost;
pub mod fs;
pub mod ids;
pub mod item;
pub mod mapping;
pub mod memory;
pub mod meter;
pub mod object;
pub mod retry;
pub mod stream;

pub use buffered::BufferedUpload;
pub use clock::{Clock, SystemClock};
pub use cost::{Cost, LIST_PRICES, PRICES_AS_OF, Prices};
pub use fs::FsObjectStore;
pub use ids::{Ids, RandomIds, SeededIds};
pub use item::{Attr, Item, ItemCondition, ItemContext, ItemError, ItemPage, ItemResult, ItemStore};
pub use mapping::{EventSourceMappings, MappingError, MappingSettings, StartingPosition};
pub use meter::{Count, Meter, Metered, RequestKind, Usage};
pub use object::{
    ETag, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PutMode, Upload,
};
pub use retry::{Retry, RetryPolicy, Retrying};
pub use stream::{
    Put, PutFailure, PutRecord, Records, Shard, ShardIterator, ShardStart, StreamAdmin, StreamDescription, StreamError,
    StreamErrorKind, StreamReader, StreamRecord, StreamResult, StreamState, StreamWriter,
};
