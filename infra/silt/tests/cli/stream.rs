//! What goes into a stream, and what becomes of it.

use super::*;

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
