//! Kinds of objects, and what happens to one, or to an attribute of the pointer.
//!
//! Above: `main`.

use bytes::Bytes;
use siltstone_store::item::{Attr, Item};

/// Places of a cut, and of a changed bit.
pub(crate) const PLACES: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Schema,
    Snapshot,
    Latest,
    Earliest,
    ManifestList,
    Manifest,
    Data,
    Changelog,
    Checkpoints,
}

pub(crate) fn kind(key: &str) -> Kind {
    let name = key.rsplit('/').next().unwrap();
    match name {
        "LATEST" => Kind::Latest,
        "EARLIEST" => Kind::Earliest,
        _ if name.starts_with("schema-") => Kind::Schema,
        _ if name.starts_with("snapshot-") => Kind::Snapshot,
        _ if name.starts_with("manifest-list-") => Kind::ManifestList,
        _ if name.starts_with("manifest-") => Kind::Manifest,
        _ if name.starts_with("data-") => Kind::Data,
        _ if name.starts_with("changelog-") => Kind::Changelog,
        _ if name.starts_with("checkpoints-") => Kind::Checkpoints,
        _ => panic!("what is {key}?"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    Cut(usize),
    Bit(usize),
    Swapped,
    Missing,
}

impl Damage {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..PLACES).map(Self::Cut).chain((0..PLACES).map(Self::Bit)).chain([Self::Swapped, Self::Missing])
    }

    /// The bytes that are left; `None` when there are none, or when nothing changes.
    pub(crate) fn apply(self, bytes: &Bytes, other: &Bytes) -> Option<Bytes> {
        let changed = match self {
            Self::Cut(n) => bytes.slice(..bytes.len() * n / PLACES),
            Self::Bit(n) => {
                // Spread over the whole object by the golden ratio.
                let bits = bytes.len() as u64 * 8;
                let bit = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % bits;
                let mut bytes = bytes.to_vec();
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                bytes.into()
            }
            Self::Swapped => other.clone(),
            Self::Missing => return None,
        };
        Some(changed)
    }

    pub(crate) fn place(self) -> Option<usize> {
        match self {
            Self::Cut(n) | Self::Bit(n) => Some(n),
            Self::Swapped | Self::Missing => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cut(_) => "cut",
            Self::Bit(_) => "bit",
            Self::Swapped => "swapped",
            Self::Missing => "missing",
        }
    }
}

/// One attribute of the pointer with one thing wrong.
pub(crate) fn damaged_items(item: &Item, other: &Item) -> Vec<(String, Option<Item>)> {
    let mut damaged = vec![("missing".to_owned(), None)];
    let swapped = Item { partition: item.partition.clone(), ..other.clone() };
    damaged.push(("swapped".to_owned(), Some(swapped)));
    for (name, value) in &item.attributes {
        let mut with = |what: String, value: Option<Attr>| {
            let mut item = item.clone();
            item.attributes.remove(name);
            item.attributes.extend(value.map(|value| (name.clone(), value)));
            damaged.push((format!("{name} {what}"), Some(item)));
        };
        with("missing".to_owned(), None);
        for n in 0..PLACES {
            let change = |bytes: &[u8], damage: Damage| {
                let bytes = Bytes::copy_from_slice(bytes);
                damage.apply(&bytes, &bytes).filter(|left| *left != bytes)
            };
            for damage in [Damage::Cut(n), Damage::Bit(n)] {
                let changed = match value {
                    Attr::S(text) if text.is_empty() => None,
                    Attr::B(bytes) if bytes.is_empty() => None,
                    Attr::S(text) => {
                        change(text.as_bytes(), damage).map(|b| Attr::S(String::from_utf8_lossy(&b).into_owned()))
                    }
                    Attr::B(bytes) => change(bytes, damage).map(Attr::B),
                    Attr::N(number) => match damage {
                        Damage::Bit(n) => Some(Attr::N(number ^ (1 << n))),
                        _ => None,
                    },
                };
                if let Some(changed) = changed {
                    with(format!("{damage:?}"), Some(changed));
                }
            }
        }
    }
    damaged
}
