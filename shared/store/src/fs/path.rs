//! Keys to paths, and listings of a directory tree in the byte order of keys.
//! Neighbours: `super` (the store). Invariants: 1. a resolved path is inside the root;
//! 2. a directory sorts as its name with `/`, so that a walk in order gives keys in order.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Fail, PRIVATE, file_meta};
use crate::object::{ListPage, ObjectMeta};

/// The path of a key.
pub(super) fn resolve(root: &Path, key: &str) -> Result<PathBuf, Fail> {
    let mut path = root.to_path_buf();
    for (depth, segment) in key.split('/').enumerate() {
        if segment.is_empty() || segment == "." || segment == ".." || (depth == 0 && segment == PRIVATE) {
            return Err(Fail::invalid(format!("segment {segment:?} of the key cannot be a file name")));
        }
        // On systems where a back slash or a drive letter separates, such a name is more than one component.
        if Path::new(segment).components().count() != 1 || Path::new(segment).is_absolute() {
            return Err(Fail::invalid(format!("segment {segment:?} of the key is not one file name")));
        }
        path.push(segment);
    }
    Ok(path)
}

/// The directory that holds everything under a prefix, as key prefix (empty, or ending in `/`) and as path.
fn directory_of(root: &Path, prefix: &str) -> Result<(String, PathBuf), Fail> {
    match prefix.rfind('/') {
        None => Ok((String::new(), root.to_path_buf())),
        Some(at) => {
            let (dir, _) = prefix.split_at(at);
            Ok((format!("{dir}/"), resolve(root, dir)?))
        }
    }
}

/// Names of one directory, directories with `/`, in byte order; none if it is missing. Names that are not UTF-8 are no keys, and links are
/// not followed: a loop of links has no end.
fn entries(key_prefix: &str, path: &Path) -> Result<Vec<(String, fs::DirEntry)>, Fail> {
    let reader = match fs::read_dir(path) {
        Ok(reader) => reader,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut names = Vec::new();
    for entry in reader {
        let entry = entry?;
        let Some(kind) = unless_gone(entry.file_type())? else { continue };
        let Ok(name) = entry.file_name().into_string() else { continue };
        if key_prefix.is_empty() && name == PRIVATE {
            continue;
        }
        if kind.is_dir() {
            names.push((format!("{key_prefix}{name}/"), entry));
        } else if kind.is_file() {
            names.push((format!("{key_prefix}{name}"), entry));
        }
    }
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(names)
}

/// Nothing where a file was deleted since it was read from the directory. One that may not be looked at is no missing one.
fn unless_gone<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// One page of keys.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, Fail> {
    let (dir, path) = directory_of(root, prefix)?;
    let mut stack = vec![entries(&dir, &path)?.into_iter()];
    let mut objects: Vec<ObjectMeta> = Vec::new();
    while let Some(level) = stack.last_mut() {
        let Some((key, entry)) = level.next() else {
            stack.pop();
            continue;
        };
        if key.ends_with('/') {
            let may_match = key.starts_with(prefix) || prefix.starts_with(&key);
            let may_follow = after.is_none_or(|a| key.as_str() > a || a.starts_with(&key));
            if may_match && may_follow {
                stack.push(entries(&key, &entry.path())?.into_iter());
            }
        } else if key.starts_with(prefix) && after.is_none_or(|a| key.as_str() > a) {
            if objects.len() == limit {
                return Ok(ListPage { objects, more: true });
            }
            objects.extend(unless_gone(entry.metadata())?.and_then(|m| file_meta(&key, &m)));
        }
    }
    Ok(ListPage { objects, more: false })
}

/// Directories right below a prefix.
pub(super) fn list_dirs(root: &Path, prefix: &str) -> Result<Vec<String>, Fail> {
    let (dir, path) = directory_of(root, prefix)?;
    let names = entries(&dir, &path)?.into_iter().map(|(name, _)| name);
    Ok(names.filter(|name| name.ends_with('/') && name.starts_with(prefix)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_not_be_looked_at_is_not_left_out_of_a_listing() {
        assert_eq!(unless_gone(Ok(7)).unwrap(), Some(7));
        assert_eq!(unless_gone::<u8>(Err(io::ErrorKind::NotFound.into())).unwrap(), None);
        let denied = unless_gone::<u8>(Err(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
    }
}
