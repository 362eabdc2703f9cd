//! Damage to JSON that leaves it JSON: values of other kinds, names that are gone or foreign, deep and wide values, odd numbers.
//!
//! Above: the mutator of bytes, which does everything that breaks the grammar. Invariant: 1. what is no JSON is not touched here.

use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

use super::Tools;

const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1e400",
    "-0.0",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "1e-400",
    "0.1",
    "18446744073709551616",
    "123456789012345678901234567890.5",
    "1E3",
    "253402300800000",
];

/// A damaged copy, or `None` for what is no JSON.
pub(crate) fn damaged(bytes: &[u8], tools: Tools<'_>, rng: &mut SmallRng) -> Option<Vec<u8>> {
    let mut root: Value = serde_json::from_slice(bytes).ok()?;
    let count = nodes(&root);
    let mut target = rng.random_range(0..count);
    let node = pick(&mut root, &mut target)?;
    match rng.random_range(0..8_u32) {
        0 | 1 => *node = made_up(tools, rng),
        2 => remove(node, rng),
        3 => add(node, tools, rng),
        4 => rename(node, tools, rng),
        5 => *node = from_another(tools, rng).unwrap_or(Value::Null),
        6 => {
            let depth = *[1, 3, 31, 33, 127, 129].choose(rng)?;
            let list = rng.random_bool(0.5);
            for _ in 0..depth {
                let inner = node.take();
                *node = if list { json!([inner]) } else { json!({"type": "ARRAY", "element": inner}) };
            }
        }
        _ => {
            if let Value::Array(items) = node
                && let Some(item) = items.choose(rng).cloned()
            {
                let times = *[1, 2, 100].choose(rng)?;
                items.extend(std::iter::repeat_n(item, times));
            } else {
                *node = Value::String(node.to_string());
            }
        }
    }
    serde_json::to_vec(&root).ok()
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum(),
        _ => 0,
    }
}

fn pick<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| pick(item, left)),
        Value::Object(fields) => fields.values_mut().find_map(|item| pick(item, left)),
        _ => None,
    }
}

fn made_up(tools: Tools<'_>, rng: &mut SmallRng) -> Value {
    let number =
        |rng: &mut SmallRng| NUMBERS.choose(rng).and_then(|n| serde_json::from_str(n).ok()).unwrap_or(Value::Null);
    match rng.random_range(0..9_u32) {
        0 => Value::Null,
        1 => Value::Bool(rng.random()),
        2 | 3 => number(rng),
        4 => Value::from(rng.random_range(-3..=70_i64)),
        5 => Value::String(tools.words.choose(rng).copied().unwrap_or("").to_owned()),
        6 => Value::String("\u{0}é\"\\/\u{1f600}".repeat(1 << rng.random_range(0..8_u32))),
        7 => Value::Array(vec![number(rng); rng.random_range(0..4)]),
        _ => Value::Object(Map::new()),
    }
}

fn remove(node: &mut Value, rng: &mut SmallRng) {
    match node {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            if let Some(name) = names.choose(rng) {
                fields.remove(name);
            }
        }
        Value::Array(items) if !items.is_empty() => drop(items.remove(rng.random_range(0..items.len()))),
        other => *other = Value::Null,
    }
}

fn add(node: &mut Value, tools: Tools<'_>, rng: &mut SmallRng) {
    let new = made_up(tools, rng);
    match node {
        Value::Object(fields) => {
            let name = tools.words.choose(rng).copied().unwrap_or("x");
            fields.insert(name.to_owned(), new);
        }
        Value::Array(items) => items.push(new),
        other => *other = new,
    }
}

fn rename(node: &mut Value, tools: Tools<'_>, rng: &mut SmallRng) {
    let Value::Object(fields) = node else { return };
    let names: Vec<String> = fields.keys().cloned().collect();
    if let (Some(old), Some(new)) = (names.choose(rng), tools.words.choose(rng))
        && let Some(value) = fields.remove(old)
    {
        fields.insert((*new).to_owned(), value);
    }
}

fn from_another(tools: Tools<'_>, rng: &mut SmallRng) -> Option<Value> {
    let mut other: Value = serde_json::from_slice(tools.pool.choose(rng)?).ok()?;
    let mut target = rng.random_range(0..nodes(&other));
    pick(&mut other, &mut target).map(Value::take)
}
