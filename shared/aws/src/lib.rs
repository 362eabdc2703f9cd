//! The ports of `store` on AWS: S3, DynamoDB, Kinesis and Lambda's event source mappings; and the clients they share.
//! Above: the functions' `main`, `silt`, end-to-end tests. Below: the AWS SDK.
//! Invariants: 1. one port call is one SDK call sent once: the SDK's retries are off; 2. an error's kind claims no more than is certain:
//! a write without a clear answer is unknown; 3. credentials and payloads are in no message.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod certainty;
pub mod clients;
mod dynamodb;
mod kinesis;
mod lambda;
mod s3;
pub mod stores;

pub use clients::{Clients, Endpoints, NoAccess, Timeouts};
pub use dynamodb::{DynamoItems, create_items_table};
pub use kinesis::KinesisStream;
pub use lambda::LambdaMappings;
pub use s3::S3Store;
pub use stores::Stores;
