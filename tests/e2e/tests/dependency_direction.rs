//! Which crate may depend on which, checked over `cargo metadata`; and the shape of the repository beside it.
//! Neighbours: `clippy.toml` of the core crates bans what a crate that is allowed still may not call.
//! Invariants: 1. an edge between workspace crates is in `ALLOWED` or starts in a tool or a test; 2. the pure core reaches no
//! async runtime, AWS or HTTP crate, and names no source of randomness or time itself; 3. the top level holds the agreed
//! entries only; 4. every Rust source starts with a module header.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Crate folder to the crate folders it may depend on. `*` as a folder's last part stands for every crate under it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("shared/format", &[]),
    ("shared/lsm", &["shared/format"]),
    ("shared/commit", &["shared/format"]),
    ("shared/decode", &["shared/format"]),
    ("shared/store", &[]),
    ("shared/aws", &["shared/store"]),
    ("shared/table", &["shared/lsm", "shared/commit", "shared/decode", "shared/store", "shared/format"]),
    ("shared/sim", &["shared/table", "shared/lsm", "shared/commit", "shared/decode", "shared/store", "shared/format"]),
    ("functions/*", &["shared/table", "shared/aws", "shared/store", "shared/format"]),
    ("infra/local", &["shared/store", "shared/aws", "shared/table", "shared/format", "functions/*"]),
    // The command line and the tests see everything; nothing may see them.
    ("infra/silt", &["shared/*", "functions/*", "infra/local"]),
    ("tests/*", &["shared/*", "functions/*", "infra/*"]),
];

/// The crates that take bytes, values and iterators and return values.
const CORE: &[&str] = &["shared/format", "shared/lsm", "shared/commit", "shared/decode"];

/// What the core may not reach, however far away. A trailing `*` stands for any rest.
const CORE_NEVER_REACHES: &[&str] = &[
    "tokio*",
    "async-std",
    "smol",
    "futures*",
    "async-trait",
    "aws-*",
    "lambda_*",
    "hyper*",
    "reqwest",
    "h2",
    "rustls*",
    "object_store",
    "mio",
    "socket2",
];

/// What the core may not name itself. Arrow brings chrono, and arrow-avro brings rand for its writer's sync marker: the
/// methods are banned by clippy.toml.
const CORE_NEVER_NAMES: &[&str] = &["rand*", "getrandom", "fastrand", "chrono", "time", "tempfile", "tracing*"];

/// What the top level may hold, besides dot files and the build folder.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "events",
    "functions",
    "infra",
    "rustfmt.toml",
    "shared",
    "target",
    "tests",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

fn matches(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == text, |start| text.starts_with(start))
}

/// A dependency graph: names, workspace folders, and edges with whether each is for normal builds.
#[derive(Default)]
struct Graph {
    names: BTreeMap<String, String>,
    folders: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<(String, bool)>>,
}

impl Graph {
    /// Reads `cargo metadata`'s JSON. Folders are relative to `workspace_root`.
    fn read(metadata: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let workspace = text(&metadata["workspace_root"]);
        let members: BTreeSet<String> = metadata["workspace_members"].as_array().unwrap().iter().map(text).collect();
        let mut graph = Self::default();
        for package in metadata["packages"].as_array().unwrap() {
            let id = text(&package["id"]);
            if members.contains(&id) {
                let manifest = text(&package["manifest_path"]);
                let folder = Path::new(&manifest).parent().unwrap().strip_prefix(&workspace).unwrap();
                graph.folders.insert(id.clone(), folder.to_str().unwrap().to_owned());
            }
            graph.names.insert(id, text(&package["name"]));
        }
        for node in metadata["resolve"]["nodes"].as_array().unwrap() {
            let edges = node["deps"].as_array().unwrap().iter().map(|dep| {
                // A kind is null for normal, "dev" or "build" else; build scripts run on the developer's machine.
                let normal = dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
                (text(&dep["pkg"]), normal)
            });
            graph.edges.insert(text(&node["id"]), edges.collect());
        }
        graph
    }

    /// Every edge, path or name that the rules forbid, in words. Empty is what we want.
    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, folder) in &self.folders {
            found.extend(self.forbidden_edges(id, folder));
            if CORE.contains(&folder.as_str()) {
                found.extend(self.forbidden_in_core(id, folder));
            }
        }
        found
    }

    fn forbidden_edges(&self, id: &str, from: &str) -> Vec<String> {
        let Some((_, targets)) = ALLOWED.iter().find(|(pattern, _)| matches(pattern, from)) else {
            return vec![format!("{from} is in no rule: add it to ALLOWED with what it may depend on")];
        };
        let edges = self.edges.get(id).map(Vec::as_slice).unwrap_or_default();
        let to = edges.iter().filter_map(|(to, _)| self.folders.get(to));
        to.filter(|to| *to != from && !targets.iter().any(|pattern| matches(pattern, to)))
            .map(|to| format!("{from} may not depend on {to}"))
            .collect()
    }

    fn forbidden_in_core(&self, id: &str, folder: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (to, _) in self.edges[id].iter().filter(|(_, normal)| *normal) {
            if CORE_NEVER_NAMES.iter().any(|pattern| matches(pattern, &self.names[to])) {
                found.push(format!("{folder} may not name {}: take what it gives as an argument", self.names[to]));
            }
        }
        // Breadth first, so that the path shown is a shortest one.
        let mut paths = vec![vec![id]];
        let mut seen = BTreeSet::from([id]);
        while !paths.is_empty() {
            let mut next = Vec::new();
            for path in paths {
                for (to, _) in self.edges[path[path.len() - 1]].iter().filter(|(_, normal)| *normal) {
                    if !seen.insert(to) {
                        continue;
                    }
                    let longer: Vec<&str> = path.iter().copied().chain([to.as_str()]).collect();
                    if CORE_NEVER_REACHES.iter().any(|pattern| matches(pattern, &self.names[to])) {
                        let names: Vec<&str> = longer.iter().map(|id| self.names[*id].as_str()).collect();
                        found.push(format!("{folder} may not reach {}: {}", self.names[to], names.join(" -> ")));
                    }
                    next.push(longer);
                }
            }
            paths = next;
        }
        found
    }
}

fn cargo_metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        // Lambda's platforms; without the filter cargo would fetch crates of other systems.
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .args(["--filter-platform", "aarch64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A workspace of (folder, dependencies with their kind), each folder's crate named after it; other names are registry crates.
fn planted(crates: &[(&str, &[(&str, &str)])]) -> Graph {
    let kind = |kind: &str| if kind == "normal" { Value::Null } else { json!(kind) };
    let known: BTreeSet<&str> =
        crates.iter().flat_map(|(from, deps)| deps.iter().map(|(to, _)| *to).chain([*from])).collect();
    let packages: Vec<Value> = known
        .iter()
        .map(|id| json!({ "id": id, "name": id, "manifest_path": format!("/w/{id}/Cargo.toml") }))
        .collect();
    let members: Vec<&&str> = known.iter().filter(|id| id.contains('/')).collect();
    let nodes: Vec<Value> = known
        .iter()
        .map(|id| {
            let own = crates.iter().filter(|(from, _)| from == id).flat_map(|(_, deps)| deps.iter());
            let deps: Vec<Value> =
                own.map(|(to, k)| json!({ "pkg": to, "dep_kinds": [{ "kind": kind(k) }] })).collect();
            json!({ "id": id, "deps": deps })
        })
        .collect();
    Graph::read(&json!({
        "workspace_root": "/w", "workspace_members": members, "packages": packages, "resolve": { "nodes": nodes }
    }))
}

#[test]
fn workspace_keeps_the_dependency_direction() {
    let graph = Graph::read(&cargo_metadata());
    let folders: BTreeSet<&str> = graph.folders.values().map(String::as_str).collect();
    assert!(CORE.iter().all(|core| folders.contains(core)), "the rules are about crates that exist: {folders:?}");
    assert_eq!(graph.violations(), Vec::<String>::new());
}

#[test]
fn allowed_edges_are_no_violation() {
    let graph = planted(&[
        ("shared/table", &[("shared/lsm", "normal"), ("shared/store", "normal"), ("tokio", "normal")]),
        ("shared/lsm", &[("shared/format", "normal"), ("arrow", "normal"), ("tokio", "dev")]),
        ("functions/ingest", &[("shared/table", "normal"), ("shared/aws", "normal")]),
        ("tests/e2e", &[("infra/local", "normal"), ("functions/ingest", "dev")]),
    ]);
    assert_eq!(graph.violations(), Vec::<String>::new());
}

#[test]
fn planted_forbidden_edges_are_found() {
    let cases: &[(&str, &str)] = &[
        ("shared/format", "shared/lsm"),
        ("shared/lsm", "shared/commit"),
        ("shared/commit", "shared/store"),
        ("shared/decode", "shared/table"),
        ("shared/store", "shared/format"),
        ("shared/aws", "shared/table"),
        ("shared/table", "shared/aws"),
        ("functions/ingest", "functions/compact"),
        ("functions/ingest", "infra/local"),
        ("infra/local", "infra/silt"),
        ("shared/table", "tests/e2e"),
    ];
    for (from, to) in cases {
        let graph = planted(&[(from, &[(to, "normal")])]);
        assert_eq!(graph.violations(), vec![format!("{from} may not depend on {to}")]);
        let graph = planted(&[(from, &[(to, "dev")])]);
        assert_eq!(graph.violations(), vec![format!("{from} may not depend on {to}")], "dev-dependencies count too");
    }
}

#[test]
fn crate_without_a_rule_is_found() {
    let graph = planted(&[("extra/thing", &[("shared/format", "normal")])]);
    assert_eq!(graph.violations(), vec!["extra/thing is in no rule: add it to ALLOWED with what it may depend on"]);
}

#[test]
fn runtime_reached_from_the_core_is_found_with_its_path() {
    let graph = planted(&[("shared/lsm", &[("parquet", "normal")]), ("parquet", &[("tokio", "normal")])]);
    assert_eq!(graph.violations(), vec!["shared/lsm may not reach tokio: shared/lsm -> parquet -> tokio"]);
    let graph = planted(&[("shared/format", &[("aws-sdk-s3", "normal")])]);
    assert_eq!(graph.violations(), vec!["shared/format may not reach aws-sdk-s3: shared/format -> aws-sdk-s3"]);
}

#[test]
fn randomness_named_by_the_core_is_found() {
    let graph = planted(&[("shared/commit", &[("rand", "normal")])]);
    assert_eq!(graph.violations(), vec!["shared/commit may not name rand: take what it gives as an argument"]);
}

#[test]
fn top_level_holds_the_agreed_entries_only() {
    let entries = std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let others: Vec<String> = entries.filter(|e| !e.starts_with('.') && !TOP_LEVEL.contains(&e.as_str())).collect();
    assert_eq!(others, Vec::<String>::new(), "move these under one of {TOP_LEVEL:?}");
}

/// All `.rs` files below `folder`, build output left out.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_starts_with_a_module_header() {
    let mut files = Vec::new();
    for folder in ["shared", "functions", "infra", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 20, "found only {}: the walk is broken", files.len());
    let bare: Vec<&PathBuf> =
        files.iter().filter(|file| !std::fs::read_to_string(file).unwrap().trim_start().starts_with("//!")).collect();
    assert_eq!(bare, Vec::<&PathBuf>::new(), "start these with `//! what it is for`");
}
