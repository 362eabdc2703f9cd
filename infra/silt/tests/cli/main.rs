//! `silt` as its users meet it: a process with arguments, two outputs and an exit code.
//!
//! Neighbours: unit tests beside the commands hold what needs no process. Inside: one module by what is asked for; here is what they share. Every test has a directory and ports of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "other processes are waited for, by the clock on the wall")]

mod data;
mod stream;
mod tables;
mod usage;

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::TcpListener,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long a served table may take to show what was produced.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

/// How long a command may take.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// A command that ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Ended {
    /// The words of a failure with this exit code: one line, no colours, no panic, nothing on standard output.
    fn failure(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{} {}", self.out, self.err);
        assert_eq!(self.err.trim_end().lines().count(), 1, "{}", self.err);
        assert!(!self.err.contains(['\u{1b}']) && !self.err.contains("panicked"), "{}", self.err);
        self.err.trim_end()
    }

    fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{} {}", self.out, self.err);
        self.out
    }
}

fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silt"));
    for name in ["SILTSTONE_BUCKET", "SILTSTONE_WAREHOUSE", "SILTSTONE_ITEMS_TABLE", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn silt<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    ended(command(args).spawn().unwrap())
}

/// Waits for a command; one that stays, as a stack that should not have been started does, is killed and then has no exit code.
fn ended(mut child: Child) -> Ended {
    let until = Instant::now() + ENDED_WITHIN;
    // What is printed here fits in a pipe.
    while child.try_wait().unwrap().is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().ok();
    child.wait_with_output().unwrap().into()
}

/// The directory of a local stack, and the process that serves it, if one does.
struct Local {
    root: TempDir,
    dir: PathBuf,
    served: Option<Child>,
}

impl Local {
    /// A stack that was served once, and is not now.
    fn stopped() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut local = Self { dir: root.path().join("stack"), root, served: None };
        local.serve();
        local.stop();
        local
    }

    fn serve(&mut self) {
        let dir = self.dir.as_os_str().to_owned();
        let args = [OsString::from("--json"), "local".into(), "--port".into(), "0".into(), "--dir".into(), dir];
        let mut child = command(args).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("AWS_ENDPOINT_URL"), "{line}");
        self.served = Some(child);
    }

    /// As a power cut does.
    fn stop(&mut self) {
        if let Some(mut child) = self.served.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn place(&self, args: &[&str]) -> Vec<OsString> {
        let place = [OsString::from("--local"), self.dir.clone().into()];
        place.into_iter().chain(args.iter().map(OsString::from)).collect()
    }

    fn silt(&self, args: &[&str]) -> Ended {
        silt(self.place(args))
    }

    fn create(&self, more: &[&str]) {
        let fixed = ["table", "create", "k.t", "--column", "id BIGINT", "--column", "v STRING", "--primary-key", "id"];
        self.silt(&[&fixed, more].concat()).well();
    }

    /// Produces rows 1 to 20 with a value, and waits until the table shows them.
    fn fill(&self, value: &str) {
        let lines: String = (1..=20).map(|id| format!("{{\"id\": {id}, \"v\": \"{value}\"}}\n")).collect();
        self.silt(&["produce", &self.file("rows.jsonl", lines), "--table", "k.t"]).well();
        let until = Instant::now() + SHOWN_WITHIN;
        while self.silt(&["--json", "scan", "k.t", "--where", &format!("v = '{value}'")]).well().lines().count() < 20 {
            assert!(Instant::now() < until, "the table does not show its rows");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.root.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Stored bodies that begin with these bytes.
fn bodies(dir: &Path, start: &[u8], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bodies(&path, start, found);
        } else if fs::read(&path).unwrap().starts_with(start) {
            found.push(path);
        }
    }
}

/// Stored bodies that are Parquet files.
fn data_files(dir: &Path, found: &mut Vec<PathBuf>) {
    bodies(dir, b"PAR1", found);
}
