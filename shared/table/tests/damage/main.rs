//! Every kind of object of a table, cut off at 50 places, with one bit changed in 50 places, in place of another table's, and missing:
//! each verb answers with an error that names the object and has written nothing, or with exactly what it answers without the damage.
//! A deep check finds the damage, save for what no reader could see ([`is_excused`] says what and why).
//!
//! One table in memory (two partitions of two buckets, a changelog, compacted and not, expired, more shards than the pointer holds) is copied for
//! each case. A verb that does not read the damaged object cannot answer otherwise, so only those that do are asked. Here verbs take turns over
//! the places; `cargo test -p siltstone-table --test damage -- --ignored` asks all of them everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod kinds;
mod state;
mod subject;
mod verbs;
#[path = "../world/mod.rs"]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use siltstone_table::{Authority, Purpose, TableRef};

use kinds::{Damage, Kind, damaged_items, kind};
use state::{Changes, State};
use subject::table;
use verbs::{OLDEST, VERBS, Verb, rows};

/// What went wrong, and how often, with one example.
#[derive(Default)]
struct Faults(BTreeMap<String, (usize, String)>);

impl Faults {
    fn add(&mut self, what: impl Into<String>, example: impl Into<String>) {
        self.0.entry(what.into()).or_insert_with(|| (0, example.into())).0 += 1;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, (times, example))| writeln!(f, "{times:>5} {what}\n      e.g. {example}"))
    }
}

/// Expiry leaves what it cannot read about to the sweep, and stays below a hole: what is missing may be what a run that died, or one that runs
/// beside it, has deleted. The rows are compared all the same.
///
/// The oldest snapshot is gone after an expiry by any engine, so its loss cannot be told from one.
fn is_cautious(verb: Verb, damage: Damage, key: &str) -> bool {
    let oldest = key.ends_with(&format!("/snapshot-{OLDEST}"));
    damage == Damage::Missing && (verb == Verb::Expire || oldest && matches!(verb, Verb::Snapshots | Verb::Changelog))
}

/// What a deep check need not find: Siltstone's own objects, of which a bare table knows nothing, and a missing EARLIEST, which other engines do
/// not write and without which every reader lists.
fn is_excused(authority: Authority, damage: Damage, key: &str) -> bool {
    let checkpoints = authority == Authority::Bare && kind(key) == Kind::Checkpoints;
    checkpoints || kind(key) == Kind::Earliest && damage == Damage::Missing
}

/// Whether words name an object; the only schema of a bare table is named by what was looked for.
fn is_named(words: &str, authority: Authority, key: &str) -> bool {
    let looked_for = key.replace("schema-0", "schema-*");
    words.contains(key) || authority == Authority::Bare && words.contains(&looked_for)
}

/// What is asked.
struct Asked {
    state: State,
    at: TableRef,
    authority: Authority,
    /// What each verb answers without damage, the rows after it, and the keys that it reads.
    wanted: BTreeMap<Verb, (String, String, BTreeSet<String>)>,
    /// All verbs at every place.
    all: bool,
}

/// One damaged table against all verbs that read the damaged object.
async fn one(asking: &Asked, damage: &Changes, key: &str, damage_name: Damage, faults: &mut Faults) {
    let Asked { state, at, authority, wanted, all } = asking;
    let (authority, label) = (*authority, format!("{:?} {}", kind(key), damage_name.name()));
    for (verb, (answer, after, read)) in wanted {
        if !read.contains(key) || !all && !takes_turn(*verb, damage_name) {
            continue;
        }
        // A deep check finds what the other one finds: in most places that is enough.
        let shallow = *verb == Verb::CheckDeep && !all && damage_name.place().is_some_and(|n| n % 5 > 0);
        if shallow
            && let Ok(found) = state.place(at, authority, damage).await.ask(Verb::Check).await
            && found.lines().any(|line| is_named(line, authority, key))
        {
            continue;
        }
        let what = |words: &str| format!("{label}: {verb:?} {words}");
        let place = state.place(at, authority, damage).await;
        let (asked, verb) = (Arc::new(place), *verb);
        let runner = asked.clone();
        let answered = tokio::spawn(async move { runner.ask(verb).await }).await;
        let named = |words: &str| is_named(words, authority, key);
        match answered {
            Err(panic) => faults.add(what("panics"), format!("{key}: {panic}")),
            Ok(Err(error)) => {
                let error = error.to_string();
                if !named(&error) {
                    faults.add(what("does not name the object"), format!("{key}: {error}"));
                }
                // The one thing that an error may leave: that nobody is to commit.
                let marked = error.contains("is forked");
                if !marked && !asked.is_untouched(state, damage).await {
                    faults.add(what("fails and has written"), format!("{key}: {error}"));
                }
            }
            Ok(Ok(found)) if matches!(verb, Verb::Check | Verb::CheckDeep) => {
                if !asked.is_untouched(state, damage).await {
                    faults.add(what("has written"), key.to_owned());
                }
                let lines = found.lines().filter(|line| named(line)).count();
                if lines == 0 && verb == Verb::CheckDeep && !is_excused(authority, damage_name, key) {
                    faults.add(what("does not find it"), format!("{key}: {found}"));
                }
            }
            Ok(Ok(found)) => {
                if found != *answer && !is_cautious(verb, damage_name, key) {
                    faults.add(what("answers otherwise"), format!("{key}: {found:.600} instead of {answer:.600}"));
                }
                if verb.writes() {
                    let table = asked.table(Purpose::Read).await;
                    let rows = match table {
                        Ok(table) => rows(&table, None).await,
                        Err(error) => Err(error),
                    };
                    match rows {
                        Ok(rows) if rows == *after => {}
                        Ok(rows) => {
                            faults.add(what("leaves other rows"), format!("{key}: {rows:.600} instead of {after:.600}"))
                        }
                        Err(error) if named(&error.to_string()) => {}
                        Err(error) => {
                            faults.add(what("leaves a table that does not name the object"), error.to_string())
                        }
                    }
                }
            }
        }
    }
}

/// What each verb answers without damage, the rows after it, and what it reads.
async fn wanted(
    state: &State,
    at: &TableRef,
    authority: Authority,
) -> BTreeMap<Verb, (String, String, BTreeSet<String>)> {
    let mut wanted = BTreeMap::new();
    for verb in VERBS.into_iter().filter(|verb| authority == Authority::Pointer || verb.is_for_bare()) {
        let place = state.place(at, authority, &Changes::default()).await;
        let answer = place.ask(verb).await.unwrap_or_else(|e| panic!("{verb:?}: {e}"));
        let read = place.store.read.lock().unwrap().clone();
        let after = rows(&place.table(Purpose::Read).await.unwrap(), None).await.unwrap();
        wanted.insert(verb, (answer, after, read));
    }
    wanted
}

/// The oldest and the newest of each kind, and so many as asked for in all.
fn chosen(state: &State, each: usize) -> Vec<String> {
    let mut kinds: BTreeMap<Kind, Vec<&String>> = BTreeMap::new();
    state.objects.keys().for_each(|key| kinds.entry(kind(key)).or_default().push(key));
    let mut chosen = Vec::new();
    for keys in kinds.values() {
        let step = (keys.len() - 1) as f64 / (each - 1) as f64;
        let places: BTreeSet<usize> = (0..each).map(|i| (i as f64 * step).round() as usize).collect();
        chosen.extend(places.into_iter().map(|i| keys[i].clone()));
    }
    chosen
}

fn quiet() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !siltstone_lsm::reader::is_guarded() {
            before(panic);
        }
    }));
}

/// Which verbs are asked of a cut or a changed bit, unless all are: a deep check always, the others in turns, each at every fifth place.
fn takes_turn(verb: Verb, damage: Damage) -> bool {
    let index = VERBS.iter().position(|v| *v == verb).unwrap();
    verb == Verb::CheckDeep || damage.place().is_none_or(|n| (n + n / 5) % 5 == index % 5)
}

/// Damages objects of a table and asks it everything that reads them.
async fn matrix(authority: Authority, all: bool) -> Faults {
    quiet();
    let ((state, at), (other, _)) = (table(0).await, table(1_000).await);
    let wanted = wanted(&state, &at, authority).await;
    assert_eq!(wanted[&Verb::CheckDeep].0, "", "the table itself is good");
    let others: BTreeMap<Kind, Bytes> =
        other.objects.iter().map(|(key, object)| (kind(key), object.bytes.clone())).collect();
    assert_eq!(others.len(), 9, "every kind of object is there: {:?}", others.keys());
    let keys = chosen(&state, if all { 4 } else { 2 });
    let asking = Arc::new(Asked { state, at, authority, wanted, all });
    let mut jobs = tokio::task::JoinSet::new();
    for key in keys {
        let (asking, others) = (asking.clone(), others.clone());
        jobs.spawn(async move {
            let mut faults = Faults::default();
            let bytes = asking.state.objects[&key].bytes.clone();
            // A bare table differs in who says what is newest, not in how objects are read.
            let every = if authority == Authority::Bare && !all { 5 } else { 1 };
            for damage in Damage::all().filter(|damage| damage.place().is_none_or(|n| n % every == 0)) {
                let left = damage.apply(&bytes, &others[&kind(&key)]);
                if left.as_ref() == Some(&bytes) {
                    continue;
                }
                let damaged = Changes([(key.clone(), left)].into());
                one(&asking, &damaged, &key, damage, &mut faults).await;
            }
            faults
        });
    }
    let mut faults = Faults::default();
    while let Some(found) = jobs.join_next().await {
        for (what, (times, example)) in found.unwrap().0 {
            faults.0.entry(what).or_insert_with(|| (0, example)).0 += times;
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_any_object_is_named_and_changes_no_answer() {
    let faults = matrix(Authority::Pointer, false).await;
    assert!(faults.0.is_empty(), "\n{faults}");
}

/// The same table as other engines have theirs: by its objects alone.
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_a_bare_table_is_named_and_changes_no_answer() {
    let faults = matrix(Authority::Bare, false).await;
    assert!(faults.0.is_empty(), "\n{faults}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute: every verb at every place, where the others let the verbs take turns"]
async fn damage_at_every_place_is_named_by_every_verb() {
    for authority in [Authority::Pointer, Authority::Bare] {
        let faults = matrix(authority, true).await;
        assert!(faults.0.is_empty(), "{authority:?}\n{faults}");
    }
}

/// The pointer is no object; its item is damaged attribute by attribute.
#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_pointer_is_named_and_writes_nothing() {
    let ((state, at), (other, _)) = (table(0).await, table(1_000).await);
    let pointer = |state: &State| state.items.iter().find(|item| item.sort == "pointer").unwrap().clone();
    let mut faults = Faults::default();
    // Pointers of before the checksum have none.
    let damages =
        damaged_items(&pointer(&state), &pointer(&other)).into_iter().filter(|(what, _)| what != "crc32 missing");
    for (number, (what, item)) in damages.enumerate() {
        let mut damaged = state.clone();
        damaged.items.retain(|item| item.sort != "pointer");
        damaged.items.extend(item);
        damaged.items.sort_by(|a, b| a.sort.cmp(&b.sort));
        for (index, verb) in VERBS.into_iter().enumerate() {
            if (number + index) % 5 > 0 {
                continue;
            }
            let place = damaged.place(&at, Authority::Pointer, &Changes::default()).await;
            match place.ask(verb).await {
                Ok(found) => faults.add(format!("{verb:?} does not mind"), format!("{what}: {found:.300}")),
                Err(error) if error.to_string().contains("pointer") && error.to_string().contains("orders") => {}
                Err(error) => faults.add(format!("{verb:?} does not name the pointer"), format!("{what}: {error}")),
            }
            if !place.is_untouched(&damaged, &Changes::default()).await {
                faults.add(format!("{verb:?} has written"), what.clone());
            }
        }
    }
    assert!(faults.0.is_empty(), "\n{faults}");
}
