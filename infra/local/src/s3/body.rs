//! Where the bytes of objects and parts lie: in memory, or one file each.
//! Neighbours: `state` (decides which body is current), `index` (remembers the names).
//! Invariants: 1. a name is random and never made from a key; 2. a file is removed when it is no longer wanted and its last
//! reader is gone, so an overwrite never tears a read; 3. a body is unwanted until `keep`: what fails to commit leaves no file.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

/// The bytes of one object or part. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Memory(Bytes),
    File(Arc<BodyFile>),
}

/// One file, removed on drop unless wanted.
#[derive(Debug)]
pub(super) struct BodyFile {
    path: PathBuf,
    name: String,
    wanted: AtomicBool,
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.wanted.load(Ordering::Acquire)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a stale body stays until the next start");
        }
    }
}

impl Body {
    /// The name in the index; empty for memory.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Memory(_) => "",
            Self::File(file) => &file.name,
        }
    }

    /// The index has it now.
    pub(super) fn keep(&self) {
        self.want(true);
    }

    /// The index has it no more.
    pub(super) fn discard(&self) {
        self.want(false);
    }

    fn want(&self, wanted: bool) {
        if let Self::File(file) = self {
            file.wanted.store(wanted, Ordering::Release);
        }
    }

    /// Blocking. Whether the first `bytes` of it are there.
    pub(super) fn require(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::File(file) if fs::metadata(&file.path)?.len() < bytes => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Memory(_) | Self::File(_) => Ok(()),
        }
    }

    /// Blocking. The range lies within the body.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(range.start).map_err(io::Error::other)?;
                let end = start.checked_add(length).filter(|end| *end <= bytes.len());
                end.map(|end| bytes.slice(start..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::File(file) => {
                let mut open = fs::File::open(&file.path)?;
                open.seek(SeekFrom::Start(range.start))?;
                let mut bytes = vec![0; length];
                open.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }
}

/// Makes bodies, in one directory or in memory.
#[derive(Debug, Clone)]
pub(super) struct Bodies {
    dir: Option<PathBuf>,
}

impl Bodies {
    pub(super) fn new(dir: Option<PathBuf>) -> io::Result<Self> {
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)?;
        }
        Ok(Self { dir })
    }

    /// Blocking. The kernel has all bytes when this returns: they outlive the process, not a power cut.
    pub(super) fn store(&self, bytes: Bytes) -> io::Result<Body> {
        let Some(dir) = &self.dir else { return Ok(Body::Memory(bytes)) };
        let name = uuid::Uuid::new_v4().simple().to_string();
        let body = BodyFile { path: path_of(dir, &name), name, wanted: AtomicBool::new(false) };
        if let Some(parent) = body.path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create_new(&body.path)?.write_all(&bytes)?;
        Ok(Body::File(Arc::new(body)))
    }

    /// A body that the index knows.
    pub(super) fn known(&self, name: &str) -> Body {
        match &self.dir {
            None => Body::Memory(Bytes::new()),
            Some(dir) => {
                let (path, name) = (path_of(dir, name), name.to_owned());
                Body::File(Arc::new(BodyFile { path, name, wanted: AtomicBool::new(true) }))
            }
        }
    }

    /// Removes what a killed process left: files that the index does not name.
    pub(super) fn sweep(&self, known: &HashSet<String>) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for shelf in fs::read_dir(dir)? {
            let shelf = shelf?.path();
            if !shelf.is_dir() {
                continue;
            }
            for file in fs::read_dir(&shelf)? {
                let file = file?;
                if !known.contains(&*file.file_name().to_string_lossy()) {
                    fs::remove_file(file.path())?;
                }
            }
        }
        Ok(())
    }
}

fn path_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(name.get(..2).unwrap_or("xx")).join(name)
}
