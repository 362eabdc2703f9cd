//! A bucket kept as a directory of a local file system: a bare warehouse as other engines read and write it.
//! Neighbours: `object` (the port), `path` (keys to paths, listings). Every call runs on tokio's blocking pool.
//! Invariants: 1. a key's path never leaves the root; 2. content appears whole or not at all (temporary file, then link or rename);
//! 3. temporary and lock files live in `.siltstone` under the root and are in no listing.

mod path;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    ids::{Ids, RandomIds},
    object::{
        ETag, ListPage, Object, ObjectError, ObjectErrorKind, ObjectMeta, ObjectResult, ObjectStore, PART_BYTES_MIN,
        PARTS_MAX, PutMode, Upload, check_key, check_limit, check_range,
    },
};

/// Directory under the root for what is not an object.
const PRIVATE: &str = ".siltstone";
/// Lock files; a key's lock is chosen by hash, so their number is bounded.
const LOCKS: u64 = 256;

/// A directory as a bucket. Keys are relative paths with `/`; empty, `.` and `..` segments are `Invalid`, and so is a key below another key.
///
/// What holds, and what does not:
/// - `IfAbsent` is a hard link, which the file system makes for one of any number of writers, foreign ones included.
/// - `IfMatch` and `Overwrite` and deletes through this type exclude each other by an advisory lock. A foreign writer takes no lock: if it
///   replaces the file between our check and our rename, its write is lost. Network file systems may not lock at all.
/// - Tags are made of file number, time and size, not of content: a foreign in-place edit within the clock's grain and of equal size is not seen.
/// - `list` is not a snapshot: files made or deleted meanwhile may be in it or not. Directories may be listed though empty.
#[derive(Debug, Clone)]
pub struct FsObjectStore {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    dir: PathBuf,
    name: String,
    sync: bool,
    ids: Arc<dyn Ids>,
}

impl FsObjectStore {
    /// Opens a directory, made if missing. Each write is flushed to the disk before it is answered.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(dir, true, Arc::new(RandomIds))
    }

    /// As [`FsObjectStore::open`], without flushing: a power cut may lose what was answered, the end of the process does not.
    pub fn open_unsynced(dir: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_with(dir, false, Arc::new(RandomIds))
    }

    fn open_with(dir: impl AsRef<Path>, sync: bool, ids: Arc<dyn Ids>) -> io::Result<Self> {
        fs::create_dir_all(dir.as_ref())?;
        let dir = fs::canonicalize(dir)?;
        let name = dir.display().to_string();
        Ok(Self { root: Arc::new(Root { dir, name, sync, ids }) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Root, &str) -> Result<T, Fail> + Send + 'static,
    ) -> ObjectResult<T> {
        check_key(operation, &self.root.name, if key.is_empty() && operation.starts_with("list") { "/" } else { key })?;
        let (root, owned) = (self.root.clone(), key.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&root, &owned)).await;
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fail)) => Err(fail.into_error(operation, &self.root.name, key)),
            Err(join) => {
                Err(ObjectError::new(ObjectErrorKind::Unknown, operation, &self.root.name, key, join.to_string()))
            }
        }
    }
}

/// Why a blocking call failed: a kind already known, or an error of the system.
#[derive(Debug)]
enum Fail {
    Known(ObjectErrorKind, String),
    Io(io::Error),
}

impl From<io::Error> for Fail {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fail {
    fn invalid(reason: impl Into<String>) -> Self {
        Self::Known(ObjectErrorKind::Invalid, reason.into())
    }

    fn into_error(self, operation: &'static str, bucket: &str, key: &str) -> Box<ObjectError> {
        let (kind, reason) = match self {
            Self::Known(kind, reason) => (kind, reason),
            Self::Io(error) => (io_kind(error.kind(), operation), error.to_string()),
        };
        ObjectError::new(kind, operation, bucket, key, reason)
    }
}

fn io_kind(kind: io::ErrorKind, operation: &str) -> ObjectErrorKind {
    let write = matches!(operation, "put" | "upload" | "part" | "complete");
    match kind {
        // A key above or below another key: no such object to a reader, an impossible one to a writer.
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists if write => {
            ObjectErrorKind::Invalid
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            ObjectErrorKind::NotFound
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::Unsupported => {
            ObjectErrorKind::Denied
        }
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => ObjectErrorKind::Invalid,
        _ => ObjectErrorKind::Unavailable,
    }
}

/// Size, tag and time of a file; `None` for anything but a regular file.
fn file_meta(key: &str, meta: &fs::Metadata) -> Option<ObjectMeta> {
    if !meta.is_file() {
        return None;
    }
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let etag = ETag::new(format!("{:x}-{:x}-{:x}", file_number(meta), modified.as_nanos(), meta.len()));
    let last_modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
    Some(ObjectMeta { key: key.to_owned(), size: meta.len(), etag, last_modified_ms })
}

#[cfg(unix)]
fn file_number(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn file_number(_: &fs::Metadata) -> u64 {
    0
}

impl Root {
    /// Opens a file for reading; a directory is no object.
    fn open(&self, key: &str) -> Result<(File, ObjectMeta), Fail> {
        let file = File::open(path::resolve(&self.dir, key)?)?;
        let meta = file_meta(key, &file.metadata()?).ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        Ok((file, meta))
    }

    fn private(&self, kind: &str) -> io::Result<PathBuf> {
        let dir = self.dir.join(PRIVATE).join(kind);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn temporary(&self) -> io::Result<Temporary> {
        let path = self.private("tmp")?.join(self.ids.uuid().to_string());
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Temporary { path, file })
    }

    /// Holds the key's advisory lock until dropped.
    fn lock(&self, key: &str) -> io::Result<File> {
        // FNV-1a: any hash does, as long as every process uses the same one.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let path = self.private("lock")?.join(format!("{:02x}", hash % LOCKS));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// Moves a written temporary file to its key under a condition.
    fn commit(&self, key: &str, temporary: &Temporary, mode: &PutMode) -> Result<ETag, Fail> {
        let target = path::resolve(&self.dir, key)?;
        if self.sync {
            temporary.file.sync_all()?;
        }
        // The tag survives link and rename: both keep file number, time and size.
        let etag = file_meta(key, &temporary.file.metadata()?).map(|m| m.etag);
        let etag = etag.ok_or_else(|| Fail::invalid("the temporary file is not a file"))?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match mode {
            PutMode::IfAbsent => match fs::hard_link(&temporary.path, &target) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && target.is_dir() => {
                    return Err(Fail::invalid("the key is a directory"));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Fail::Known(ObjectErrorKind::PreconditionFailed, "the file exists".to_owned()));
                }
                linked => linked?,
            },
            PutMode::Overwrite => {
                let _lock = self.lock(key)?;
                fs::rename(&temporary.path, &target)?;
            }
            PutMode::IfMatch(want) => {
                let _lock = self.lock(key)?;
                check_tag(key, &target, want)?;
                fs::rename(&temporary.path, &target)?;
            }
        }
        if let (true, Some(parent)) = (self.sync, target.parent()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(etag)
    }
}

fn check_tag(key: &str, target: &Path, want: &ETag) -> Result<(), Fail> {
    let now = match fs::metadata(target) {
        Ok(meta) => file_meta(key, &meta),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e.into()),
    };
    match now {
        None => Err(Fail::Known(ObjectErrorKind::NotFound, "no such file".to_owned())),
        Some(now) if now.etag != *want => {
            Err(Fail::Known(ObjectErrorKind::PreconditionFailed, "the tag differs".to_owned()))
        }
        Some(_) => Ok(()),
    }
}

/// A file outside every listing, removed when dropped (after a rename there is nothing left to remove).
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: what stays behind is in the private directory, and in no listing.
        drop(fs::remove_file(&self.path));
    }
}

#[async_trait]
impl ObjectStore for FsObjectStore {
    fn bucket(&self) -> &str {
        &self.root.name
    }

    async fn get(&self, key: &str) -> ObjectResult<Object> {
        self.blocking("get", key, |root, key| {
            let (mut file, mut meta) = root.open(key)?;
            let mut bytes = Vec::with_capacity(usize::try_from(meta.size).unwrap_or(0));
            file.read_to_end(&mut bytes)?;
            meta.size = bytes.len() as u64;
            Ok(Object { bytes: bytes.into(), meta })
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> ObjectResult<Bytes> {
        check_range(&self.root.name, key, &range)?;
        self.blocking("get_range", key, move |root, key| {
            let (mut file, meta) = root.open(key)?;
            if range.start >= meta.size {
                return Err(Fail::invalid(format!("the range starts at {}, the end is {}", range.start, meta.size)));
            }
            let length = range.end.min(meta.size) - range.start;
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            file.take(length).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        })
        .await
    }

    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        self.blocking("head", key, |root, key| Ok(root.open(key)?.1)).await
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> ObjectResult<ETag> {
        self.blocking("put", key, move |root, key| {
            path::resolve(&root.dir, key)?;
            let mut temporary = root.temporary()?;
            temporary.file.write_all(&bytes)?;
            root.commit(key, &temporary, &mode)
        })
        .await
    }

    async fn upload(&self, key: &str) -> ObjectResult<Box<dyn Upload>> {
        let temporary = self
            .blocking("upload", key, |root, key| {
                path::resolve(&root.dir, key)?;
                Ok(root.temporary()?)
            })
            .await?;
        let state = UploadState { temporary: Some(Arc::new(temporary)), length: 0, parts: 0, small_part: false };
        Ok(Box::new(FsUpload { store: self.clone(), key: key.to_owned(), state }))
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> ObjectResult<ListPage> {
        let limit = check_limit(&self.root.name, prefix, limit)?;
        let after = start_after.map(str::to_owned);
        self.blocking("list", prefix, move |root, prefix| path::list(&root.dir, prefix, after.as_deref(), limit)).await
    }

    async fn list_dirs(&self, prefix: &str) -> ObjectResult<Vec<String>> {
        self.blocking("list_dirs", prefix, |root, prefix| path::list_dirs(&root.dir, prefix)).await
    }

    async fn delete(&self, keys: &[String]) -> ObjectResult<()> {
        for key in keys {
            self.blocking("delete", key, |root, key| {
                let path = path::resolve(&root.dir, key)?;
                let _lock = root.lock(key)?;
                match fs::remove_file(path) {
                    Err(e) if io_kind(e.kind(), "delete") == ObjectErrorKind::NotFound => Ok(()),
                    removed => Ok(removed?),
                }
            })
            .await?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FsUpload {
    store: FsObjectStore,
    key: String,
    state: UploadState,
}

#[derive(Debug)]
struct UploadState {
    temporary: Option<Arc<Temporary>>,
    length: u64,
    parts: usize,
    /// A part below the minimum was sent: it must have been the last.
    small_part: bool,
}

impl FsUpload {
    fn temporary(&self, operation: &'static str) -> ObjectResult<Arc<Temporary>> {
        self.state.temporary.clone().ok_or_else(|| self.invalid(operation, "the upload is spent"))
    }

    fn invalid(&self, operation: &'static str, reason: &str) -> Box<ObjectError> {
        ObjectError::new(ObjectErrorKind::Invalid, operation, &self.store.root.name, &self.key, reason)
    }
}

#[async_trait]
impl Upload for FsUpload {
    async fn part(&mut self, bytes: Bytes) -> ObjectResult<()> {
        let temporary = self.temporary("part")?;
        if bytes.is_empty() || self.state.parts >= PARTS_MAX || self.state.small_part {
            return Err(self.invalid("part", "empty part, too many parts, or a part after one below 5 MiB"));
        }
        let (from, length) = (self.state.length, bytes.len());
        self.store
            .blocking("part", &self.key, move |_, _| {
                // From where the last good part ended: a failed attempt may have left some bytes.
                let mut file = &temporary.file;
                file.seek(SeekFrom::Start(from))?;
                file.write_all(&bytes)?;
                Ok(file.set_len(from + bytes.len() as u64)?)
            })
            .await?;
        self.state.length += length as u64;
        self.state.parts += 1;
        self.state.small_part = length < PART_BYTES_MIN;
        Ok(())
    }

    async fn complete(&mut self, mode: PutMode) -> ObjectResult<ETag> {
        let temporary = self.temporary("complete")?;
        if self.state.parts == 0 {
            return Err(self.invalid("complete", "no parts"));
        }
        let commit = move |root: &Root, key: &str| root.commit(key, &temporary, &mode);
        let etag = self.store.blocking("complete", &self.key, commit).await?;
        self.state.temporary = None;
        Ok(etag)
    }

    async fn abort(&mut self) -> ObjectResult<()> {
        self.state.temporary = None;
        Ok(())
    }
}

/// Removes temporary files that crashed writers left, older than a time (milliseconds since 1970 UTC), and returns how many.
/// Choose a time before which no writer can have begun.
pub async fn clear_temporary(store: &FsObjectStore, older_than_ms: i64) -> ObjectResult<usize> {
    store
        .blocking("list_temporary", "tmp", move |root, _| {
            let mut removed = 0;
            for entry in fs::read_dir(root.private("tmp")?)? {
                let entry = entry?;
                let ours = entry.file_name().to_str().is_some_and(|n| Uuid::try_parse(n).is_ok());
                let meta = entry.metadata().ok().and_then(|m| file_meta("", &m));
                if ours && meta.is_some_and(|m| m.last_modified_ms < older_than_ms) {
                    fs::remove_file(entry.path())?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    fn store() -> (tempfile::TempDir, FsObjectStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = FsObjectStore::open_unsynced(dir.path()).unwrap();
        (dir, store)
    }

    async fn put(store: &FsObjectStore, key: &str) -> Result<ETag, ObjectErrorKind> {
        store.put(key, Bytes::from_static(b"x"), PutMode::IfAbsent).await.map_err(|e| e.kind())
    }

    #[test]
    fn what_may_not_be_touched_is_denied_and_only_what_is_not_there_is_not_found() {
        for operation in ["get", "get_range", "head", "put", "upload", "list", "list_dirs", "delete"] {
            let kind = |system: io::ErrorKind| io_kind(system, operation);
            for denied in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
                assert_eq!(kind(denied), ObjectErrorKind::Denied, "{operation}");
            }
            assert_eq!(kind(io::ErrorKind::NotFound), ObjectErrorKind::NotFound, "{operation}");
            assert_eq!(kind(io::ErrorKind::StorageFull), ObjectErrorKind::Unavailable, "{operation}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn directories_keep_the_contract_of_objects() {
        let (_dir, store) = store();
        contract::object::run_on_paths(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn keys_that_would_leave_the_root_are_refused() {
        let (dir, store) = store();
        fs::write(dir.path().parent().unwrap().join("siltstone-outside"), b"secret").ok();
        for key in ["../siltstone-outside", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", ".siltstone/tmp/x", ".."] {
            assert_eq!(store.get(key).await.unwrap_err().kind(), ObjectErrorKind::Invalid, "{key}");
            assert_eq!(put(&store, key).await.unwrap_err(), ObjectErrorKind::Invalid, "{key}");
            assert_eq!(store.delete(&[key.to_owned()]).await.unwrap_err().kind(), ObjectErrorKind::Invalid, "{key}");
        }
        assert_eq!(store.list("../", None, 10).await.unwrap_err().kind(), ObjectErrorKind::Invalid);
        fs::remove_file(dir.path().parent().unwrap().join("siltstone-outside")).ok();
    }

    #[tokio::test]
    async fn a_key_below_a_key_is_refused_and_changes_nothing() {
        let (_dir, store) = store();
        put(&store, "x").await.unwrap();
        put(&store, "d/y").await.unwrap();
        assert_eq!(put(&store, "x/y").await.unwrap_err(), ObjectErrorKind::Invalid);
        assert_eq!(put(&store, "d").await.unwrap_err(), ObjectErrorKind::Invalid);
        let over = store.put("d", Bytes::new(), PutMode::Overwrite).await.unwrap_err();
        assert_eq!(over.kind(), ObjectErrorKind::Invalid);
        assert_eq!(store.get("d").await.unwrap_err().kind(), ObjectErrorKind::NotFound);
        assert_eq!(store.get("x/y").await.unwrap_err().kind(), ObjectErrorKind::NotFound);
        assert_eq!(store.list("", None, 10).await.unwrap().objects.len(), 2);
    }

    #[tokio::test]
    async fn temporary_files_are_in_no_listing_and_are_cleared_by_age() {
        let (dir, store) = store();
        let mut upload = store.upload("k").await.unwrap();
        upload.part(Bytes::from_static(b"left")).await.unwrap();
        assert!(store.list("", None, 10).await.unwrap().objects.is_empty());
        assert!(store.list_dirs("").await.unwrap().is_empty());
        let stale = dir.path().join(PRIVATE).join("tmp").join(Uuid::nil().to_string());
        fs::write(&stale, b"crashed").unwrap();
        assert_eq!(clear_temporary(&store, 0).await.unwrap(), 0);
        drop(upload);
        assert_eq!(clear_temporary(&store, i64::MAX).await.unwrap(), 1);
        assert!(!stale.exists());
    }

    #[tokio::test]
    async fn a_synced_store_reopened_has_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let tag = put(&FsObjectStore::open(dir.path()).unwrap(), "a/b").await.unwrap();
        let again = FsObjectStore::open(dir.path()).unwrap();
        assert_eq!(again.head("a/b").await.unwrap().etag, tag);
    }
}
