//! Tables made, altered, dropped, repaired and made again.

use super::*;

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
