//! Immutable lists of records beside a table: each names the one before it, and a checkpoint names the last, so that the pointer vouches for all
//! of them and for no other.
//!
//! Above: `ingest` (quarantined records of a shard), `quarantine` (reads them), `replay` (replayed records). A list that no committed change
//! leads to does not count: it was put by an attempt that died, lost its race, or woke too late. Form: a line of JSON `{"previous": id or null}`,
//! then a line each record. Invariants: 1. a name is made of the content: the same list gets the same name, another one never takes it;
//! 2. a list is durable before the change that names it.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use siltstone_commit::{changes::ChangeId, checkpoint::ListId};
use siltstone_store::object::{ObjectErrorKind, PutMode};

use crate::{
    error::{Result, TableError},
    ports::Ports,
};

/// Largest list that is read.
const LIST_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    previous: Option<String>,
}

/// A list as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    /// Its name.
    pub(crate) id: ListId,
    /// Key of its object.
    pub(crate) key: String,
    /// Its records.
    pub(crate) lines: Vec<String>,
}

/// Puts a list below `prefix`, after `previous`, and returns its name.
///
/// # Errors
/// When the store refuses or does not answer.
pub(crate) async fn put(
    ports: &Ports,
    prefix: &str,
    previous: Option<ListId>,
    lines: impl IntoIterator<Item = String>,
) -> Result<ListId> {
    let header = Header { previous: previous.map(|id| id.to_string()) };
    let mut text = serde_json::to_string(&header).map_err(|e| TableError::Bug(e.to_string()))?;
    for line in lines {
        text.push('\n');
        text.push_str(&line);
    }
    text.push('\n');
    let id = name_of(&text);
    match ports.objects.put(&key(prefix, id), Bytes::from(text), PutMode::IfAbsent).await {
        Ok(_) => Ok(id),
        Err(error) if error.kind() == ObjectErrorKind::PreconditionFailed => Ok(id),
        Err(error) => Err((*error).into()),
    }
}

/// The lists below `prefix` that `last` leads to, the newest first.
///
/// # Errors
/// When one is missing or damaged: what it held is then not known.
pub(crate) async fn chain(ports: &Ports, prefix: &str, last: Option<ListId>) -> Result<Vec<List>> {
    let (mut lists, mut seen, mut next) = (Vec::new(), BTreeSet::new(), last);
    while let Some(id) = next {
        let key = key(prefix, id);
        if !seen.insert(id) {
            return Err(damaged(&key, "it leads back to itself"));
        }
        let (previous, lines) = read(ports, &key, id).await?;
        next = previous;
        lists.push(List { id, key, lines });
    }
    Ok(lists)
}

async fn read(ports: &Ports, key: &str, id: ListId) -> Result<(Option<ListId>, Vec<String>)> {
    let object = match ports.objects.get(key).await {
        Ok(object) => object,
        Err(error) if error.kind() == ObjectErrorKind::NotFound => {
            return Err(damaged(key, "the table's checkpoints lead to it and it does not exist"));
        }
        Err(error) => return Err((*error).into()),
    };
    if object.bytes.len() > LIST_BYTES_MAX {
        return Err(damaged(key, "it is larger than any list of ours"));
    }
    let text = std::str::from_utf8(&object.bytes).map_err(|_| damaged(key, "it is not UTF-8"))?;
    if name_of(text) != id {
        return Err(damaged(key, "its content is not what its name says"));
    }
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next().unwrap_or_default())
        .map_err(|e| damaged(key, &format!("its first line is no header: {e}")))?;
    let previous = header.previous.map(|text| text.parse()).transpose()?;
    Ok((previous, lines.map(str::to_owned).collect()))
}

fn name_of(text: &str) -> ListId {
    let hash = ChangeId::derive(text).0;
    ListId((hash >> 64) as u64 ^ hash as u64)
}

fn key(prefix: &str, id: ListId) -> String {
    format!("{prefix}{id}.jsonl")
}

fn damaged(key: &str, why: &str) -> TableError {
    TableError::Corrupt(format!("object {key}: {why}; restore it from a backup"))
}
