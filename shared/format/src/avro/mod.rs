//! Avro object container files as Paimon's manifests use them: own code, because the input is not trusted.
//!
//! Below: `schema` (what a writer says it wrote), `cursor` (values), `container` (header, blocks, compression). Above: `manifest`.
//! Neither `arrow-avro` nor `apache-avro` bounds what a damaged file makes it allocate: see shared/design/0002.
//! Invariants: 1. nothing is allocated by a length that the bytes behind it do not cover; 2. a compressed block opens to at most
//! [`MAX_BLOCK_BYTES`]; 3. values are read in the writer's order, unknown ones skipped by the writer's schema.

pub(crate) mod container;
pub(crate) mod cursor;
pub(crate) mod schema;

pub use container::{Compression, MAX_BLOCK_BYTES, MAX_FILE_BYTES};
