//! `silt` as its users meet it: a process with arguments, two outputs and an exit code.
//!
//! Neighbours: unit tests beside the commands hold what needs no process. Every test has a directory and ports of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "other processes are waited for, by the clock on the wall")]

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

#[test]
fn arguments_that_are_no_text_are_refused_in_words() {
    let odd = OsStr::from_bytes(b"st\xff");
    let ended = silt([OsStr::new("scan"), odd]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    for args in [["--local", "", "scan", "k.t"], ["local", "--dir", "", "--exports"], ["demo", "--keep", "", "--json"]]
    {
        let ended = silt(args.iter().map(|word| if word.is_empty() { odd } else { OsStr::new(word) }));
        assert!(ended.failure(2).contains("needs a name in UTF-8"), "{args:?}: {}", ended.err);
    }
}

#[test]
fn wrong_usage_is_json_with_json() {
    let ended = silt(["--json", "scna"]);
    let words: Value = serde_json::from_str(ended.failure(2)).unwrap();
    assert!(words["error"].as_str().unwrap().starts_with("unrecognized subcommand 'scna'"), "{words}");
}

#[test]
fn places_that_a_verb_does_not_use_and_two_places_are_refused() {
    for (args, words) in [
        (&["--local", "st", "local", "--port", "0"][..], "silt local --dir"),
        (&["--warehouse", "file:///tmp", "local"], "silt local --dir"),
        (&["--local", "st", "demo"], "--keep"),
        (&["demo", "--warehouse", "file:///tmp"], "--keep"),
        (&["--local", "st", "quarantine", "list", "k.t", "--warehouse", "file:///tmp"], "two places"),
    ] {
        let ended = silt(args);
        assert!(ended.failure(2).contains(words), "{args:?}: {}", ended.err);
    }
}

#[test]
fn a_stack_that_cannot_serve_is_refused_before_it_starts() {
    let empty = tempfile::tempdir().unwrap();
    let functions = empty.path().to_str().unwrap();
    let ended = silt(["local", "--port", "0", "--process", "--functions", functions]);
    assert!(ended.failure(2).contains("siltstone-ingest/bootstrap is not there"), "{}", ended.err);
    let ended = silt(["local", "--port", "65535"]);
    assert!(ended.failure(2).contains("four ports in a row"), "{}", ended.err);
}

#[test]
fn tables_are_made_and_dropped_in_words() {
    let local = Local::stopped();
    local.create(&["--column", "a ARRAY<INT>", "--column", "m MAP<STRING, ROW<x INT>>"]);
    let columns: Value = serde_json::from_str(&local.silt(&["--json", "table", "describe", "k.t"]).well()).unwrap();
    assert_eq!(columns["columns"][2]["type"], "ARRAY<INT>");
    assert_eq!(columns["columns"][3]["type"], "MAP<STRING, ROW<x INT>>");
    for (column, words) in [("v VECTOR<FLOAT, 3>", "VECTOR"), ("v BLOB", "BLOB"), ("v ARRAY", "ARRAY<INT>")] {
        let ended = local.silt(&["table", "create", "k.u", "--column", column, "--primary-key", "id"]);
        assert!(ended.failure(2).contains(words), "{}", ended.err);
    }
    let shards =
        local.silt(&["table", "create", "k.u", "--column", "id INT", "--primary-key", "id", "--shards", "4000000000"]);
    assert!(shards.code == Some(2) && shards.err.contains("1..=10000"), "{}", shards.err);

    let drop = |args: &[&str]| local.silt(&[&["table", "drop", "k.t", "--yes"], args].concat());
    drop(&[]).well();
    let finished = drop(&["--purge"]).well();
    assert!(finished.contains("1 objects deleted"), "{finished}");
    for args in [&["--purge"][..], &[]] {
        let ended = drop(args);
        assert!(ended.failure(1).contains("there is no table k.t"), "{}", ended.err);
    }
}

#[test]
fn an_option_that_is_not_known_is_refused_and_one_of_other_engines_is_kept_and_named() {
    let local = Local::stopped();
    let create = |flag: &str, option: &str| {
        local.silt(&["table", "create", "k.t", "--column", "id BIGINT", "--primary-key", "id", flag, option])
    };
    let ended = create("--option", "bukcet=3");
    let words = ended.failure(2);
    assert!(
        words.contains("knows no option bukcet. Did you mean bucket?") && words.contains("--other-option"),
        "{words}"
    );
    let ended = create("--other-option", "bucket=3");
    assert!(ended.failure(2).contains("write --option bucket=3"), "{}", ended.err);
    assert_eq!(local.silt(&["table", "list"]).well(), "no tables\n");

    create("--other-option", "scan.mode=latest").well();
    let described: Value = serde_json::from_str(&local.silt(&["--json", "table", "describe", "k.t"]).well()).unwrap();
    assert_eq!(described["optionsNotKnown"], serde_json::json!(["scan.mode"]));
    assert_eq!(described["options"]["scan.mode"], "latest");
    let words = local.silt(&["table", "describe", "k.t"]).well();
    assert!(words.contains("latest (not known to Siltstone"), "{words}");
}

#[test]
fn what_a_drop_leaves_behind_is_named_and_can_be_purged_or_repaired() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s"]);
    local.fill("old");
    let dropped = local.silt(&["table", "drop", "k.t", "--yes"]).well();
    assert!(
        dropped.contains("objects stay at s3://siltstone/warehouse/k.db/t") && dropped.contains("--purge"),
        "{dropped}"
    );

    // Of another schema, and of the same one.
    let other = ["table", "create", "k.t", "--column", "n INT", "--primary-key", "n"];
    let same = ["table", "create", "k.t", "--column", "id BIGINT", "--column", "v STRING", "--primary-key", "id"];
    for (args, code) in [(&other[..], 2), (&same, 2), (&["table", "drop", "k.t", "--yes"], 1)] {
        let ended = local.silt(args);
        let words = ended.failure(code);
        assert!(words.contains("below warehouse/k.db/t/"), "{words}");
        assert!(words.contains("silt table drop k.t --purge") && words.contains("silt repair k.t"), "{words}");
    }
    assert!(local.silt(&["scan", "k.t"]).failure(1).contains("silt repair"));

    let standing = || local.silt(&["--json", "table", "list"]).well();
    assert_eq!(standing(), "{\"table\":\"k.t\",\"state\":\"no-pointer\"}\n");
    let listed = local.silt(&["table", "list"]).well();
    assert!(listed.contains("no pointer: dropped, or never under one (`silt repair k.t`)"), "{listed}");

    let repaired = local.silt(&["repair", "k.t", "--yes"]).well();
    assert_eq!(standing(), "{\"table\":\"k.t\",\"state\":\"active\"}\n");
    assert!(repaired.contains("silt table feed k.t --stream"), "{repaired}");
    let fed = local.silt(&["table", "feed", "k.t", "--stream", "s"]).well();
    assert!(fed.contains("this must be the same one"), "{fed}");
    assert_eq!(local.silt(&["--json", "scan", "k.t"]).well().lines().count(), 20);
    local.silt(&["table", "drop", "k.t", "--yes"]).well();
    local.silt(&["table", "drop", "k.t", "--purge", "--yes"]).well();
    local.silt(&other).well();
}

#[test]
fn a_feed_is_shown_and_changed_and_a_stream_is_not_exchanged() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&[]);
    let feed = |args: &[&str]| local.silt(&[&["--json", "table", "feed", "k.t"], args].concat());
    let told = |ended: Ended| -> Value { serde_json::from_str(&ended.well()).unwrap() };
    assert_eq!(told(feed(&[]))["stream"], Value::Null);
    assert!(feed(&["--op-field", "op"]).failure(2).contains("name it as well, with --stream"));
    assert!(local.silt(&["produce", "-", "--table", "k.t"]).failure(1).contains("silt table feed k.t --stream"));

    let set = told(feed(&["--stream", "s", "--op-field", "op"]));
    assert_eq!((&set["changed"], &set["decoder"]["op-field"]), (&true.into(), &"op".into()), "{set}");
    local.fill("old");
    // What is printed is what --decoder takes.
    let mut decoder = told(feed(&[]))["decoder"].clone();
    assert_eq!(told(feed(&["--decoder", &local.file("same.json", decoder.to_string())]))["changed"], false);
    decoder["columns"]["w"] = serde_json::json!({"path": "/w"});
    let ended = feed(&["--decoder", &local.file("bad.json", decoder.to_string())]);
    assert!(ended.failure(2).contains("does not fit the table"), "{}", ended.err);
    let ended = feed(&["--stream", "other"]);
    assert!(ended.failure(2).contains("has taken records of"), "{}", ended.err);
    let now = told(feed(&["--format", "debezium-json"]));
    assert_eq!((&now["decoder"]["format"], &now["decoder"]["op-field"]), (&"debezium-json".into(), &Value::Null));
    let words = local.silt(&["table", "feed", "k.t", "--format", "json"]).well();
    assert!(words.contains("changed; a warm `ingest` sees it at most 10 s from now"), "{words}");
}

#[test]
fn produce_says_what_becomes_of_records_that_cannot_be_decoded() {
    let local = Local::stopped();
    local.create(&["--stream", "s"]);
    let bad = local.file("bad", "no JSON\n");
    let words = local.silt(&["produce", &bad, "--table", "k.t"]).well();
    assert!(words.contains("they go to its quarantine"), "{words}");
    let decoder = local.file("fail.json", r#"{"bad-records": "fail"}"#);
    local.silt(&["table", "feed", "k.t", "--decoder", &decoder]).well();
    let words = local.silt(&["produce", &bad, "--table", "k.t"]).well();
    assert!(
        words.contains("each shard stops at the first of them") && !words.contains("go to its quarantine"),
        "{words}"
    );
}

#[test]
fn a_drained_stream_names_no_quarantine_where_its_table_puts_nothing_into_one() {
    let mut local = Local::stopped();
    local.serve();
    let decoder = local.file("fail.json", r#"{"bad-records": "fail"}"#);
    local.create(&["--stream", "s", "--decoder", &decoder]);
    local.silt(&["produce", &local.file("one.jsonl", "{\"id\": 1}\n"), "--table", "k.t"]).well();
    assert_eq!(local.silt(&["drain", "k.t", "--seconds", "60"]).well(), "all records of s are in k.t\n");
}

/// `silt` on AWS, of which nothing is set but what is given.
fn silt_on_aws(set: &[(&str, &str)]) -> Ended {
    let mut command = command(["--bucket", "lake", "scan", "k.t"]);
    for name in std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_CONFIG_FILE", "/nonexistent").env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    ended(command.envs(set.iter().copied()).spawn().unwrap())
}

#[test]
fn without_credentials_or_region_a_verb_says_what_to_set() {
    let ended = silt_on_aws(&[("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_REGION", "eu-central-1")]);
    let words = ended.failure(2);
    for part in ["no AWS credentials", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "--local DIR"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_EC2_METADATA_DISABLED", "true")];
    assert!(silt_on_aws(&keys).failure(2).contains("set AWS_REGION"));
}

#[test]
fn a_metadata_service_that_never_answers_is_not_waited_for() {
    // Connections are taken by the system, and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let started = Instant::now();
    let ended = silt_on_aws(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    assert!(ended.failure(2).contains("AWS_PROFILE"), "{}", ended.err);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn a_partition_is_named_as_its_value_reads() {
    let mut local = Local::stopped();
    local.serve();
    let columns = ["--column", "id BIGINT", "--column", "v STRING", "--column", "dt DATE"];
    let fixed = ["table", "create", "k.t", "--primary-key", "id,dt", "--partition-by", "dt", "--stream", "s"];
    local.silt(&[&fixed[..], &columns].concat()).well();
    let day = out_of_days(SystemTime::now());
    let row = local.file("row", format!("{{\"id\": 1, \"dt\": {day}}}\n"));
    local.silt(&["produce", &row, "--table", "k.t"]).well();
    local.silt(&["drain", "k.t", "--seconds", "60"]).well();
    let file: Value = serde_json::from_str(&local.silt(&["--json", "files", "k.t"]).well()).unwrap();
    let named = file["partition"].as_str().unwrap();
    let row: Value = serde_json::from_str(&local.silt(&["--json", "scan", "k.t"]).well()).unwrap();
    assert_eq!(named, format!("dt={}", row["dt"].as_str().unwrap()));
    assert!(file["key"].as_str().unwrap().contains(&format!("/dt={day}/")), "the path is as it is: {file}");
    assert!(local.silt(&["files", "k.t"]).well().contains(named));
}

/// Days since 1970, as Paimon's directories have them.
fn out_of_days(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86_400
}

#[test]
fn a_number_for_the_bucket_on_s3_leads_to_the_buckets_of_the_table() {
    for place in [&[][..], &["--local", "st"], &["--warehouse", "file:///tmp"]] {
        let ended = silt([place, &["compact", "k.t", "--bucket", "3"]].concat());
        assert!(ended.failure(2).contains("silt compact k.t --only-bucket 3"), "{}", ended.err);
    }
    let help = silt(["compact", "--help"]).well();
    assert!(help.contains("--bucket is the one on S3"), "{help}");
}

#[test]
fn an_empty_table_says_so_beside_its_rows_and_a_failed_scan_leaves_the_file_alone() {
    let local = Local::stopped();
    local.create(&[]);
    let ended = local.silt(&["scan", "k.t"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "", "no rows\n"));
    let ended = local.silt(&["--json", "scan", "k.t"]);
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", ""));
    let keep = local.file("keep.txt", "precious");
    local.silt(&["scan", "k.t", "--snapshot", "999", "--output-file", &keep]).failure(1);
    assert_eq!(fs::read_to_string(&keep).unwrap(), "precious");
}

#[test]
fn a_long_value_and_control_characters_are_shown_in_a_table_and_whole_in_json_and_csv() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s"]);
    let long = "x".repeat(500_000);
    let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\r\nend";
    let lines =
        [(1, long.as_str()), (2, evil), (3, "short")].map(|(id, v)| serde_json::json!({"id": id, "v": v}).to_string());
    local.silt(&["produce", &local.file("rows.jsonl", lines.join("\n")), "--table", "k.t"]).well();
    local.silt(&["drain", "k.t", "--seconds", "60"]).well();
    let shown = local.silt(&["scan", "k.t"]).well();
    assert_eq!(shown.lines().count(), 4, "a header and three rows");
    assert!(shown.lines().all(|line| line.chars().count() < 300 && !line.contains(char::is_control)), "{shown}");
    assert!(shown.contains("xxx…") && shown.contains("\\u{1b}]0;owned\\u{7}\\u{9b}2J\\r\\nend"), "{shown}");
    // More than a pipe holds.
    let whole = |form: &str| {
        let path = local.file("whole", "");
        local.silt(&["scan", "k.t", "--format", form, "--output-file", &path]).well();
        fs::read_to_string(path).unwrap()
    };
    let json = whole("json");
    let values: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(values.iter().any(|row| row["v"] == long) && values.iter().any(|row| row["v"] == evil));
    let csv = whole("csv");
    assert!(csv.contains(&long) && csv.contains(evil));
}

#[test]
fn an_option_of_no_size_and_an_operation_field_without_a_name_are_refused() {
    let local = Local::stopped();
    let create = |more: &[&str]| {
        let fixed = ["table", "create", "k.t", "--column", "id BIGINT", "--primary-key", "id", "--stream", "s"];
        local.silt(&[&fixed, more].concat())
    };
    for option in ["target-file-size=0", "target-file-size=0 mb", "manifest.target-file-size=0"] {
        let ended = create(&["--option", option]);
        assert!(ended.failure(2).contains("target-file-size = 0"), "{}", ended.err);
    }
    let decoder = local.file("decoder.json", r#"{"op-field": " "}"#);
    for more in [["--op-field", ""], ["--decoder", &decoder]] {
        let ended = create(&more);
        assert!(ended.failure(2).contains("the field that holds the operation has no name"), "{}", ended.err);
    }
    create(&[]).well();
    let ended = local.silt(&["table", "feed", "k.t", "--op-field", ""]);
    assert!(ended.failure(2).contains("the field that holds the operation has no name"), "{}", ended.err);
}

#[test]
fn a_paused_table_and_an_id_that_no_snapshot_has_end_every_verb_alike() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s"]);
    local.fill("old");
    for args in [&["scan", "k.t", "--snapshot"][..], &["files", "k.t", "--snapshot"], &["rollback", "k.t", "--to"]] {
        for id in ["0", "-1"] {
            let ended = local.silt(&[args, &[id]].concat());
            assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{args:?} {id}: {}", ended.err);
        }
    }
    local.fill("new");
    local.silt(&["pause", "k.t"]).well();
    for args in [&["compact", "k.t", "--full"][..], &["rollback", "k.t", "--to", "1"], &["drain", "k.t"]] {
        let ended = local.silt(args);
        let words = ended.failure(3);
        assert!(words.contains("paused") && words.contains("silt resume k.t"), "{args:?}: {words}");
    }
}

#[test]
fn a_compaction_drops_deletes_by_the_lateness_that_it_is_given() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s", "--op-field", "op"]);
    let lines = "{\"id\": 1, \"v\": \"a\", \"op\": \"u\"}\n{\"id\": 1, \"op\": \"d\"}\n";
    local.silt(&["produce", &local.file("rows.jsonl", lines), "--table", "k.t"]).well();
    local.silt(&["drain", "k.t", "--seconds", "60"]).well();
    for (more, rows) in [(&[][..], 1), (&["--lateness-ms", "0"], 0)] {
        let told = local.silt(&[&["--json", "compact", "k.t", "--full"], more].concat()).well();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["rowsOut"], rows, "{more:?}: {told}");
    }
}

#[test]
fn produce_sends_what_is_no_text_in_full_calls_and_names_the_line_that_stops_it() {
    let local = Local::stopped();
    local.create(&["--stream", "s"]);
    let produce = |file: &str| local.silt(&["--json", "produce", file, "--table", "k.t"]);
    let bad = local.file("bad", b"\xff\xfe\n".repeat(1_000));
    let told: Value = serde_json::from_str(&produce(&bad).well()).unwrap();
    assert_eq!((&told["records"], &told["undecodable"], &told["calls"]), (&1_000.into(), &1_000.into(), &2.into()));
    let long = [b"{\"id\": 1}\n\xff\n".as_slice(), &[b'x'; 2 << 20]].concat();
    let long = local.file("long", long);
    let ended = produce(&long);
    let words = ended.failure(2);
    assert!(
        words.contains(&format!("{long}:3: the line is longer")) && words.contains("confirmed 2 records"),
        "{words}"
    );
    assert!(produce("/dev/zero").failure(2).contains("/dev/zero:1: "));
    assert!(produce(local.root.path().to_str().unwrap()).failure(2).contains("is a directory"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let local = Local::stopped();
    local.create(&["--stream", "s"]);
    let told = |content: &[u8]| -> Value {
        let file = local.file("rows.jsonl", content);
        serde_json::from_str(&local.silt(&["--json", "produce", &file, "--table", "k.t"]).well()).unwrap()
    };
    let marked = told(b"\xef\xbb\xbf{\"id\": 1}\n{\"id\": 2}\n");
    assert_eq!((&marked["records"], &marked["undecodable"], &marked["bytes"]), (&2.into(), &0.into(), &18.into()));
    let later = told(b"{\"id\": 1}\n\xef\xbb\xbf{\"id\": 2}\n");
    assert_eq!((&later["records"], &later["undecodable"]), (&2.into(), &1.into()), "elsewhere it is what it is");
    assert_eq!(told(b"\xef\xbb\xbf\n\xef\xbb")["records"], 1, "a mark alone is a blank line");
}

#[test]
fn commands_at_once_on_a_stopped_stack_wait_for_each_other() {
    let local = Local::stopped();
    local.create(&["--stream", "s"]);
    let holder = command(local.place(&["produce", "-", "--table", "k.t"])).stdin(Stdio::piped()).spawn().unwrap();
    let scans: Vec<Child> = (0..4).map(|_| command(local.place(&["scan", "k.t"])).spawn().unwrap()).collect();
    std::thread::sleep(Duration::from_secs(1));
    let mut holder = holder;
    holder.stdin.take().unwrap().write_all(b"{\"id\": 1}\n").unwrap();
    ended(holder).well();
    for scan in scans {
        ended(scan).well();
    }
}

#[test]
fn a_bucket_that_cannot_be_compacted_stops_no_other_and_is_named() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s", "--option", "bucket=2"]);
    local.fill("old");
    local.fill("new");
    local.stop();
    let mut files = Vec::new();
    data_files(&local.dir, &mut files);
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&files[0]).unwrap();
    file.seek(SeekFrom::End(-64)).unwrap();
    let mut end = [0; 64];
    file.read_exact(&mut end).unwrap();
    file.seek(SeekFrom::End(-64)).unwrap();
    file.write_all(&end.map(|byte| !byte)).unwrap();

    let ended = local.silt(&["--json", "compact", "k.t", "--full"]);
    assert_eq!(ended.code, Some(1), "{} {}", ended.out, ended.err);
    let told: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed: Vec<&Value> = told.iter().filter(|bucket| bucket["error"].is_string()).collect();
    let done: Vec<&Value> = told.iter().filter(|bucket| bucket["snapshot"].is_number()).collect();
    assert_eq!((failed.len(), done.len()), (1, 1), "{}", ended.out);
    let words = format!("bucket {}: ", failed[0]["bucket"]);
    assert!(ended.err.contains(&words) && ended.err.contains("nothing was changed in this bucket"), "{}", ended.err);
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    assert!(!ended.err.contains('\u{1b}'), "{}", ended.err);
}

#[test]
fn bad_records_are_drained_into_quarantine_and_replayed_once_by_a_mended_decoder() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s"]);
    let lines = "{\"id\": 1, \"v\": \"good\"}\n{\"key\": 2, \"v\": \"bad\"}\nno JSON\n";
    local.silt(&["produce", &local.file("rows.jsonl", lines), "--table", "k.t"]).well();
    assert!(local.silt(&["drain", "k.t", "--seconds", "60"]).well().contains("all records of s are in k.t"));
    let listed = local.silt(&["--json", "quarantine", "list", "k.t"]).well();
    assert_eq!(listed.lines().count(), 2, "{listed}");

    let decoder = local.file("mended.json", r#"{"columns": {"id": {"path": "/key"}}}"#);
    let replay = ["--json", "quarantine", "replay", "k.t", "--decoder", &decoder];
    let ended = local.silt(&replay);
    assert_eq!(ended.code, Some(1), "one is still no JSON: {} {}", ended.out, ended.err);
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    let counts =
        |told: &Value| (told["replayed"].as_array().unwrap().len(), told["rejected"].as_array().unwrap().len());
    assert_eq!((counts(&told), &told["rows"]), ((1, 1), &1.into()), "{told}");
    assert_eq!(local.silt(&["--json", "scan", "k.t", "--where", "v = 'bad'"]).well().lines().count(), 1);
    assert_eq!(counts(&serde_json::from_str(&local.silt(&replay).out).unwrap()), (0, 1));
    assert_eq!(local.silt(&["--json", "quarantine", "list", "k.t"]).well().lines().count(), 1);
    let position = told["replayed"][0].as_str().unwrap();
    assert!(
        local.silt(&["quarantine", "show", "k.t", position]).well().contains("replayed: its rows are in the table")
    );

    assert!(local.silt(&["pause", "k.t"]).well().contains("silt resume"));
    local.silt(&["produce", &local.file("more.jsonl", "{\"id\": 3}\n"), "--table", "k.t"]).well();
    assert!(local.silt(&["drain", "k.t"]).failure(3).contains("k.t is paused: `silt resume k.t`"));
    local.silt(&["resume", "k.t"]).well();
    assert!(local.silt(&["drain", "k.t", "--seconds", "60"]).well().contains("are in k.t or in its quarantine"));
    assert_eq!(local.silt(&["--json", "scan", "k.t", "--where", "id = 3"]).well().lines().count(), 1);
}

#[test]
fn a_table_that_is_created_again_is_read_from_the_beginning_of_its_stream() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s"]);
    local.silt(&["produce", &local.file("one.jsonl", "{\"id\": 1}\n"), "--table", "k.t"]).well();
    local.silt(&["drain", "k.t", "--seconds", "60"]).well();
    local.silt(&["table", "drop", "k.t", "--purge", "--yes"]).well();
    local.create(&["--stream", "s"]);
    local.silt(&["drain", "k.t", "--seconds", "60"]).well();
    let rows = local.silt(&["--json", "scan", "k.t"]).well();
    assert_eq!(rows.lines().count(), 1, "the record of before the drop, once: {rows}");
}

#[test]
fn damage_of_any_object_ends_in_words_and_exit_code_1() {
    let mut local = Local::stopped();
    local.serve();
    local.create(&["--stream", "s", "--option", "changelog-producer=input"]);
    local.fill("old");
    local.stop();
    let whole = local.silt(&["--json", "check", "k.t", "--deep"]).well();
    let told: Value = serde_json::from_str(whole.lines().last().unwrap()).unwrap();
    assert_eq!(told["problems"], 0, "{whole}");
    assert!(told["filesRead"].as_u64() >= Some(2) && told["rowsRead"].as_u64() >= Some(40), "{whole}");
    for start in [b"PAR1".as_slice(), b"Obj\x01", b"{\"version\":3,\"uuid\"", b"{\"version\":3,\"id\""] {
        let mut found = Vec::new();
        bodies(&local.dir, start, &mut found);
        assert!(!found.is_empty(), "{}", String::from_utf8_lossy(start));
        let good = fs::read(&found[0]).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        fs::write(&found[0], &bad).unwrap();
        let ended = local.silt(&["--json", "check", "k.t", "--deep"]);
        assert_eq!(ended.code, Some(1), "{} {}", ended.out, ended.err);
        let words = if ended.err.is_empty() { &ended.out } else { ended.failure(1) };
        assert!(words.contains("k.db/t/"), "{words}");
        for verb in ["scan", "files", "snapshots", "compact"] {
            let ended = local.silt(&[verb, "k.t"]);
            if ended.code != Some(0) {
                assert!(ended.failure(1).contains("k.db/t/"), "{verb}: {}", ended.err);
            }
        }
        for verb in ["scan", "files"] {
            fs::write(&found[0], &good[..good.len() / 2]).unwrap();
            let short = local.silt(&[verb, "k.t"]);
            fs::remove_file(&found[0]).unwrap();
            for ended in [short, local.silt(&[verb, "k.t"])] {
                if ended.code != Some(0) {
                    assert!(ended.failure(1).contains("k.db/t/"), "{verb}: {}", ended.err);
                }
            }
        }
        fs::remove_file(&found[0]).ok();
        let ended = local.silt(&["check", "k.t", "--deep"]);
        assert_eq!(ended.code, Some(1), "a body that is gone is no service that does not answer: {}", ended.err);
        fs::write(&found[0], &good).unwrap();
    }
    local.silt(&["check", "k.t", "--deep"]).well();
}

#[test]
fn a_file_in_place_of_a_directory_and_two_forms_at_once_are_refused_in_words() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    for verb in [["local", "--dir"], ["demo", "--keep"]] {
        let args = verb.map(OsString::from).into_iter().chain([file.clone().into()]);
        let words = silt(args);
        assert!(words.failure(2).contains("is no directory"), "{}", words.err);
    }
    let local = Local::stopped();
    local.create(&["--stream", "s"]);
    let both = local.silt(&["--json", "scan", "k.t", "--format", "csv"]);
    assert!(both.failure(2).contains("one of the two"), "{}", both.err);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = ended(command(local.place(&["table", "list"])).stdout(full).spawn().unwrap());
    assert!(full.failure(1).contains("the output cannot be written"), "{}", full.err);
}

#[test]
fn a_demo_that_is_stopped_says_so_and_leaves_no_process_behind() {
    let root = tempfile::tempdir().unwrap();
    let mut demo = command(["demo", "--seconds", "60", "--json"]).env("TMPDIR", root.path()).spawn().unwrap();
    let until = Instant::now() + ENDED_WITHIN;
    let tasks = |id: u32| -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
    };
    let mut started = tasks(demo.id());
    while started.is_empty() && Instant::now() < until && demo.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(50));
        started = tasks(demo.id());
    }
    assert!(!started.is_empty(), "no function was started");
    Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    let stopped = ended(demo);
    assert_eq!(stopped.code, Some(1), "{}", stopped.err);
    assert!(stopped.err.contains("stopped before its end"), "{}", stopped.err);
    for id in started {
        let gone =
            |id: u32| !fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().contains("function");
        while !gone(id) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(gone(id), "function {id} is left");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "its directory goes with it");
}
