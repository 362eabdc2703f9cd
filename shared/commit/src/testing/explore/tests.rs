//! Small explorations that run with every test run, and proofs that the explorer finds what it is for.

use bytes::Bytes;

use super::{scenario::old_table, *};
use crate::{context::TableContext, io::Machine};

#[test]
fn the_first_states_of_every_scenario_break_no_invariant() {
    for scenario in scenarios() {
        let report = explore(&scenario, 400);
        assert_eq!(report.violation, None, "{report}");
    }
}

#[test]
fn small_scenarios_are_exhausted_and_one_scenario_gives_one_report() {
    for mut scenario in scenarios().into_iter().filter(|s| s.name == "lost-pointer" || s.name == "slots") {
        scenario.faults = 0;
        let report = explore(&scenario, 10_000);
        assert!(report.complete && report.violation.is_none() && report.ends > 5, "{report}");
        assert_eq!(explore(&scenario, 10_000), report);
    }
}

/// Writes LATEST as engines on a filesystem do: read, then put over whatever is there.
fn careless_hint(context: &TableContext, id: &'static str) -> Machine<()> {
    let key = context.location.latest_hint();
    Machine::new(move |io| async move {
        io.ask("test/1 read", Effect::Get { key: key.clone() }).await;
        let body = Bytes::from(id);
        io.ask("test/2 put", Effect::Put { key, body, mode: PutMode::Overwrite }).await;
        Ok(())
    })
}

#[test]
fn unconditional_raise_of_latest_is_found_by_the_shortest_path() {
    let scenario = Scenario::new("careless", "", old_table())
        .with("high", |()| Answer::Done, |c| careless_hint(c, "4"))
        .with("low", |()| Answer::Done, |c| careless_hint(c, "3"));
    let violation = explore(&scenario, 1_000).violation.expect("LATEST falls");
    assert!(violation.message.starts_with("invariant 10: LATEST fell from 4 to 3"), "{}", violation.message);
    assert_eq!(violation.path.len(), 1, "the read is as good as not there: {:?}", violation.path);
}

/// Reads an object that nobody but `delete` touches, and fails if it is gone.
fn needs(context: &TableContext) -> Machine<()> {
    let key = context.key("note");
    Machine::new(move |io| async move {
        match io.ask("test/1 read", Effect::Get { key }).await {
            Reply::Object(_) => Ok(()),
            _ => Err(CommitError::bug("the note is gone")),
        }
    })
}

fn deletes(context: &TableContext) -> Machine<()> {
    let keys = vec![context.key("note")];
    Machine::new(move |io| async move {
        io.ask("test/1 delete", Effect::Delete { keys }).await;
        Ok(())
    })
}

#[test]
fn read_that_was_taken_for_independent_is_interleaved_once_someone_deletes_its_key() {
    let (context, mut world) = old_table();
    world.put(&context.key("note"), "x");
    let alone = Scenario::new("alone", "", (context.clone(), world.clone())).with("reader", |()| Answer::Done, needs);
    let report = explore(&alone, 1_000);
    assert_eq!((report.states, report.rounds, report.shared_keys), (1, 1, 0), "{report}");
    let both = Scenario::new("both", "", (context, world)).with("reader", |()| Answer::Done, needs).with(
        "deleter",
        |()| Answer::Done,
        deletes,
    );
    let report = explore(&both, 1_000);
    assert_eq!((report.rounds, report.shared_keys), (2, 1), "{report}");
    let violation = report.violation.expect("the delete comes first in one order");
    assert_eq!(
        violation.path,
        ["deleter: test/1 delete: delete wh/db.db/t/note", "reader: test/1 read: get wh/db.db/t/note"]
    );
}
