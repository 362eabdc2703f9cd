//! What is read, compacted, rolled back, and found damaged.

use super::*;

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
