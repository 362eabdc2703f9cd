//! The parsers, each with its seeds, its words, what it may hold in memory, and what must be true of what it takes.
//!
//! Below: `tables` (metadata of a table), `rows` (BinaryRow and data files), `state` (the pointer's item and its neighbours), `events` (what streams
//! and services deliver), `texts` (what people write). Above: `driver`.
//! Invariants: 1. every name stands once; 2. every parser has at least one seed that it takes.

mod events;
mod rows;
mod state;
mod tables;
mod texts;

use std::fmt::Debug;

use crate::{corpus::Corpus, mutate::Shape};

/// What a parser made of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An error, as it should be for damage.
    Refused,
    /// A value, of which everything holds.
    Taken,
    /// Something that must hold does not.
    Broken(String),
}

/// What a parser may hold at once.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Bytes for each byte of the input.
    pub per_byte: usize,
    /// And so many more.
    pub constant: usize,
}

impl Memory {
    /// The most for an input of this length.
    #[must_use]
    pub const fn allows(&self, input: usize) -> usize {
        self.per_byte.saturating_mul(input).saturating_add(self.constant)
    }
}

/// What is run for an input.
pub type Runner = Box<dyn Fn(&[u8]) -> Outcome>;

/// A parser to be fuzzed.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What its input is made of.
    pub shape: Shape,
    /// Words it knows.
    pub words: &'static [&'static str],
    /// What it may hold.
    pub memory: Memory,
    /// Where damage starts from.
    pub seeds: Vec<Vec<u8>>,
    /// Runs it.
    pub run: Runner,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("seeds", &self.seeds.len()).finish_non_exhaustive()
    }
}

/// Every parser.
#[must_use]
pub fn all(corpus: &Corpus) -> Vec<Target> {
    let mut every = Vec::new();
    every.extend(tables::targets(corpus));
    every.extend(rows::targets(corpus));
    every.extend(state::targets(corpus));
    every.extend(events::targets(corpus));
    every.extend(texts::targets(corpus));
    every
}

/// Reads, writes, reads again: the second value must be the first.
fn survives<T: PartialEq + Debug, E, W: Debug, R: Debug>(
    first: Result<T, E>,
    write: impl FnOnce(&T) -> Result<Vec<u8>, W>,
    read: impl FnOnce(&[u8]) -> Result<T, R>,
) -> Outcome {
    let Ok(first) = first else { return Outcome::Refused };
    let written = match write(&first) {
        Ok(written) => written,
        Err(error) => return Outcome::Broken(format!("it was read and cannot be written: {error:.300?}")),
    };
    match read(&written) {
        Ok(again) if again == first => Outcome::Taken,
        Ok(_) => Outcome::Broken("what was written reads as something else".to_owned()),
        Err(error) => Outcome::Broken(format!("what was written cannot be read: {error:.300?}")),
    }
}

/// A writer that cannot fail.
fn always<T>(write: impl FnOnce(&T) -> Vec<u8>) -> impl FnOnce(&T) -> Result<Vec<u8>, String> {
    move |value| Ok(write(value))
}

/// Texts as seeds.
fn texts_of(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}
