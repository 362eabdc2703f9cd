//! One page of a listing. Neighbours: `state` (the keys), `service` (the wire).
//! Invariants: 1. byte order; 2. a page that starts after the last entry of another neither repeats nor loses an entry.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use super::state::Stored;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) prefix: String,
    /// Empty: none.
    pub(super) delimiter: String,
    /// Entries after this one only; empty: from the start.
    pub(super) after: String,
    pub(super) limit: usize,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(String, Arc<Stored>)>,
    pub(super) prefixes: Vec<String>,
    /// The last entry, if there are more.
    pub(super) next: Option<String>,
}

/// Common prefixes count as entries, as in S3.
pub(super) fn page(objects: &BTreeMap<String, Arc<Stored>>, ask: &Ask) -> Page {
    let mut page = Page::default();
    let mut last: Option<String> = None;
    let from = if ask.after > ask.prefix { Excluded(ask.after.as_str()) } else { Included(ask.prefix.as_str()) };
    for (key, object) in objects.range::<str, _>((from, Unbounded)).take_while(|(k, _)| k.starts_with(&ask.prefix)) {
        let group = group(key, ask);
        if group.is_some_and(|g| g == ask.after || last.as_deref() == Some(g)) || *key == ask.after {
            continue;
        }
        if page.objects.len() + page.prefixes.len() >= ask.limit {
            page.next = last;
            return page;
        }
        match group {
            Some(group) => page.prefixes.push(group.to_owned()),
            None => page.objects.push((key.clone(), object.clone())),
        }
        last = Some(group.unwrap_or(key).to_owned());
    }
    page
}

/// The key up to the first delimiter after the prefix.
fn group<'k>(key: &'k str, ask: &Ask) -> Option<&'k str> {
    if ask.delimiter.is_empty() {
        return None;
    }
    let at = key.get(ask.prefix.len()..)?.find(&ask.delimiter)?;
    key.get(..ask.prefix.len() + at + ask.delimiter.len())
}

#[cfg(test)]
mod tests {
    use super::{super::state::tests::stored, *};

    #[test]
    fn pages_of_any_size_give_each_entry_once_with_and_without_a_delimiter() {
        let keys = ["a", "a/1", "a/2", "a0", "b/1/x", "b/2", "c"];
        let objects: BTreeMap<_, _> = keys.iter().map(|k| ((*k).to_owned(), Arc::new(stored()))).collect();
        for (delimiter, want) in [("", keys.to_vec()), ("/", vec!["a", "a/", "a0", "b/", "c"])] {
            for limit in 1..8 {
                let mut ask = Ask { delimiter: delimiter.to_owned(), limit, ..Ask::default() };
                let mut seen = Vec::new();
                loop {
                    let page = page(&objects, &ask);
                    assert!(page.objects.len() + page.prefixes.len() <= limit);
                    let mut entries: Vec<_> = page.objects.into_iter().map(|o| o.0).chain(page.prefixes).collect();
                    entries.sort_unstable();
                    seen.extend(entries);
                    let Some(next) = page.next else { break };
                    ask.after = next;
                }
                assert_eq!(seen, want, "delimiter {delimiter:?}, limit {limit}");
            }
        }
    }

    #[test]
    fn a_start_within_a_common_prefix_still_gives_the_prefix() {
        let objects: BTreeMap<_, _> = ["a/1", "a/2"].map(|k| (k.to_owned(), Arc::new(stored()))).into();
        let ask = |after: &str| Ask { delimiter: "/".into(), after: after.into(), limit: 9, ..Ask::default() };
        assert_eq!(page(&objects, &ask("a/1")).prefixes, ["a/"]);
        assert!(page(&objects, &ask("a/2")).prefixes.is_empty());
    }
}
