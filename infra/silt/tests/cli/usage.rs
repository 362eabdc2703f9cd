//! Arguments, places, credentials, and processes beside each other.

use super::*;

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
