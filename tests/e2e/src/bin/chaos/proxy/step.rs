//! What a request of a function would leave behind: the steps that a kill can follow.
//!
//! Neighbours: `proxy` asks for each request. Invariant: 1. a request that leaves nothing behind is no step.

use axum::http::{Method, request::Parts};
use serde_json::Value;

/// The services behind the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    S3,
    DynamoDb,
    Kinesis,
}

/// What is asked of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) service: Service,
    /// In words, as in `put data-file`; none for a read.
    pub(crate) step: Option<String>,
    /// The service answers 409 or 412 when somebody else was there.
    pub(crate) conditional: bool,
    /// A listing of snapshots: their times decide what expiry may delete.
    pub(crate) lists_snapshots: bool,
}

impl Asked {
    pub(crate) fn of(service: Service, head: &Parts, body: &[u8]) -> Self {
        let read = Self { service, step: None, conditional: false, lists_snapshots: false };
        match service {
            Service::S3 => of_s3(read, head, body),
            Service::DynamoDb => of_dynamodb(read, head, body),
            // Functions only look at streams.
            Service::Kinesis => read,
        }
    }
}

fn of_s3(read: Asked, head: &Parts, body: &[u8]) -> Asked {
    // The bucket goes first.
    let key = head.uri.path().trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    let query = head.uri.query().unwrap_or_default();
    let conditional = head.headers.contains_key("if-none-match") || head.headers.contains_key("if-match");
    let step = match head.method {
        Method::PUT if query.contains("partNumber=") => Some("put part".to_owned()),
        Method::PUT => Some(format!("put {}", object_kind(key))),
        Method::DELETE => Some(format!("delete {}", object_kind(key))),
        Method::POST if query.starts_with("delete") => Some(format!("delete {}", object_kind(first_key(body)))),
        Method::POST => Some("upload".to_owned()),
        _ => None,
    };
    let lists_snapshots = head.method == Method::GET && query.contains("snapshot%2Fsnapshot-");
    Asked { conditional: conditional && step.is_some(), step, lists_snapshots, ..read }
}

/// The first key that a request for many deletes names.
fn first_key(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.split_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>")).map_or("", |(key, _)| key)
}

/// What an object is, by its key.
fn object_kind(key: &str) -> &'static str {
    let name = key.rsplit('/').next().unwrap_or_default();
    let within = |directory: &str| key.contains(directory);
    match () {
        () if key.starts_with("_siltstone/tasks/") => "task",
        () if key.starts_with("_siltstone/quarantine/") => "quarantine-list",
        () if within("/snapshot/") && name.starts_with("snapshot-") => "snapshot",
        () if within("/snapshot/") && name == "LATEST" => "latest-hint",
        () if within("/snapshot/") && name == "EARLIEST" => "earliest-hint",
        () if within("/manifest/") && name.starts_with("manifest-list-") => "manifest-list",
        () if within("/manifest/") && name.starts_with("manifest-") => "manifest",
        () if within("/manifest/") || within("/index/") => "index",
        () if within("/bucket-") && name.starts_with("changelog-") => "changelog-file",
        () if within("/bucket-") => "data-file",
        () if within("/siltstone/") && name.starts_with("checkpoints-") => "checkpoints",
        () if within("/siltstone/") => "staged-object",
        () => "object",
    }
}

fn of_dynamodb(read: Asked, head: &Parts, body: &[u8]) -> Asked {
    let target = head.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (verb, key) = match target.rsplit('.').next() {
        Some("PutItem") => ("put", "/Item"),
        Some("UpdateItem") => ("update", "/Key"),
        Some("DeleteItem") => ("delete", "/Key"),
        _ => return read,
    };
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| request.pointer(&format!("{key}/{name}/S")).and_then(Value::as_str).unwrap_or_default();
    let step = Some(format!("{verb} {}", item_kind(text("p"), text("s"))));
    Asked { step, conditional: request.get("ConditionExpression").is_some(), ..read }
}

/// What an item is, by partition and sort key.
fn item_kind(partition: &str, sort: &str) -> &'static str {
    match sort {
        "pointer" => "pointer",
        "slots" => "slots",
        "lease" => "group-lease",
        "mapping" => "mapping",
        "sweep" => "sweep",
        _ if partition.contains("#staged-") => "staged-change",
        _ if sort.starts_with("lease#") => "bucket-lease",
        _ if sort.starts_with("debt#") => "debt",
        _ => "item",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn asked(service: Service, request: axum::http::request::Builder, body: &str) -> Asked {
        Asked::of(service, &request.body(()).unwrap().into_parts().0, body.as_bytes())
    }

    #[test]
    fn objects_are_told_by_their_keys() {
        let at = "/siltstone/warehouse/chaos.db/changes";
        let put = |key: &str| asked(Service::S3, Request::put(format!("{at}/{key}")), "").step.unwrap();
        let keys = [
            ("snapshot/snapshot-7", "put snapshot"),
            ("snapshot/LATEST", "put latest-hint"),
            ("manifest/manifest-list-1-2", "put manifest-list"),
            ("manifest/manifest-1-2", "put manifest"),
            ("bucket-0/data-1.parquet", "put data-file"),
            ("bucket-0/changelog-1.parquet", "put changelog-file"),
            ("siltstone/checkpoints-1", "put checkpoints"),
        ];
        assert_eq!(keys.map(|(key, _)| put(key)), keys.map(|(_, step)| step.to_owned()));
        let task = "/siltstone/_siltstone/tasks/warehouse/chaos.db/changes/bucket-1/7-0.json";
        assert_eq!(asked(Service::S3, Request::delete(task), "").step.unwrap(), "delete task");
        let many = "<Delete><Object><Key>w/chaos.db/changes/snapshot/snapshot-3</Key></Object></Delete>";
        assert_eq!(asked(Service::S3, Request::post("/siltstone?delete"), many).step.unwrap(), "delete snapshot");
        let read = asked(Service::S3, Request::get("/siltstone?list-type=2&prefix=w%2Fsnapshot%2Fsnapshot-"), "");
        assert!(read.step.is_none() && read.lists_snapshots);
    }

    #[test]
    fn items_are_told_by_their_keys_and_reads_are_no_steps() {
        let call = |target: &str, body: &str| {
            let request = Request::post("/").header("x-amz-target", format!("DynamoDB_20120810.{target}"));
            asked(Service::DynamoDb, request, body)
        };
        let put = call("PutItem", r#"{"Item":{"p":{"S":"table#w"},"s":{"S":"pointer"}},"ConditionExpression":"x"}"#);
        assert_eq!((put.step.as_deref(), put.conditional), (Some("put pointer"), true));
        let staged = call("DeleteItem", r#"{"Key":{"p":{"S":"table#w#staged-03"},"s":{"S":"00ff"}}}"#);
        assert_eq!((staged.step.as_deref(), staged.conditional), (Some("delete staged-change"), false));
        assert_eq!(call("GetItem", "{}").step, None);
    }
}
