//! JSON read in place: a value is a slice of checked text that is opened only when somebody asks for it.
//!
//! Above: `plain`, `debezium`, `mapping` open objects; `convert` reads values. Below: serde_json's grammar, by raw values.
//! Invariants: 1. nesting and the number of values are bounded before anything is allocated; 2. a number is its own digits;
//! 3. a name that is asked for and stands twice is an error, since parsers disagree on which one counts.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::reject::{Reject, RejectCode};

/// Deepest nesting of a record.
pub const DEPTH_MAX: usize = 128;
/// Most values (fields and array elements) of a record.
pub const VALUES_MAX: usize = 1 << 20;

/// One JSON value: its text, of checked grammar, without white space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node<'a>(&'a str);

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean(bool),
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    /// In words.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// What [`Node::pick`] left behind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Fields that nobody asked for.
    pub(crate) count: u64,
    /// The first of their names.
    pub(crate) first: Option<String>,
}

impl<'a> Node<'a> {
    /// Checks the bytes of a record.
    ///
    /// # Errors
    /// `NotUtf8`, `TooDeep`, `TooLarge` (too many values), `NotJson`; with the place and never the text.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Reject> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Reject::new(RejectCode::NotUtf8, format!("is not UTF-8 at byte {}", e.valid_up_to())))?;
        check_shape(bytes)?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|e| not_json(&e))?;
        Ok(Self(raw.get()))
    }

    /// What it is, by its first byte.
    pub(crate) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'n') => Kind::Null,
            Some(b't') => Kind::Boolean(true),
            Some(b'f') => Kind::Boolean(false),
            Some(b'"') => Kind::String,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            _ => Kind::Number,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The text as it stands in the record: the digits of a number, the JSON of anything else.
    pub(crate) const fn raw(self) -> &'a str {
        self.0
    }

    /// The contents of a string; `None` for anything else.
    ///
    /// # Errors
    /// `NotJson` for half of a surrogate pair.
    pub(crate) fn string(self) -> Result<Option<Cow<'a, str>>, Reject> {
        let Some(inner) = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return Ok(None) };
        if !inner.contains('\\') {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        serde_json::from_str::<String>(self.0)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(|_| Reject::new(RejectCode::NotJson, "is a string with half of a surrogate pair"))
    }

    /// Reads the fields of an object that `slot_of` knows into `slots`; false when this is no object.
    ///
    /// # Errors
    /// `DuplicateField` for a known name that stands twice, `NotJson` for names with half of a surrogate pair.
    pub(crate) fn pick(
        self,
        slot_of: &dyn Fn(&str) -> Option<usize>,
        slots: &mut [Option<Node<'a>>],
    ) -> Result<Option<Left>, Reject> {
        if self.kind() != Kind::Object {
            return Ok(None);
        }
        let mut picker = Picker { slot_of, slots, left: Left::default(), twice: None };
        serde_json::Deserializer::from_str(self.0).deserialize_map(&mut picker).map_err(|e| not_json(&e))?;
        match picker.twice {
            Some(name) => Err(Reject::new(RejectCode::DuplicateField, "stands twice in one object").at(&name)),
            None => Ok(Some(picker.left)),
        }
    }

    /// The fields of these names, in their order; `None` when this is no object.
    ///
    /// # Errors
    /// As [`Node::pick`].
    pub(crate) fn fields<const N: usize>(self, names: [&str; N]) -> Result<Option<[Option<Node<'a>>; N]>, Reject> {
        let mut slots = [None; N];
        let left = self.pick(&|name| names.iter().position(|known| *known == name), &mut slots)?;
        Ok(left.map(|_| slots))
    }

    /// One field; `None` when it is not there or this is no object.
    ///
    /// # Errors
    /// As [`Node::pick`].
    pub(crate) fn field(self, name: &str) -> Result<Option<Node<'a>>, Reject> {
        Ok(self.fields([name])?.and_then(|[node]| node))
    }

    /// All fields of an object, in order, repeated names included.
    ///
    /// # Errors
    /// As [`Node::pick`].
    pub(crate) fn entries(self) -> Result<Vec<(Cow<'a, str>, Node<'a>)>, Reject> {
        serde_json::Deserializer::from_str(self.0).deserialize_map(Entries).map_err(|e| not_json(&e))
    }

    /// The elements of an array; `None` for anything else.
    ///
    /// # Errors
    /// Never for text that [`Node::parse`] checked.
    pub(crate) fn items(self) -> Result<Option<Vec<Node<'a>>>, Reject> {
        if self.kind() != Kind::Array {
            return Ok(None);
        }
        serde_json::Deserializer::from_str(self.0).deserialize_seq(Items).map(Some).map_err(|e| not_json(&e))
    }
}

fn not_json(error: &serde_json::Error) -> Reject {
    let place = format!("line {}, column {}", error.line(), error.column());
    let detail = if error.is_eof() { "ends in the middle of a JSON value" } else { "is not JSON" };
    Reject::new(RejectCode::NotJson, format!("{detail} at {place}"))
}

/// Bounds depth and number of values by brackets and commas outside of strings. Text that is no JSON passes: the grammar comes next.
fn check_shape(bytes: &[u8]) -> Result<(), Reject> {
    let (mut depth, mut values, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for (place, byte) in bytes.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let detail = format!("is nested deeper than {DEPTH_MAX} levels at byte {place}");
                    return Err(Reject::new(RejectCode::TooDeep, detail));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => {
                values += 1;
                if values >= VALUES_MAX {
                    return Err(Reject::new(RejectCode::TooLarge, format!("holds more than {VALUES_MAX} values")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

struct Picker<'p, 'a> {
    slot_of: &'p dyn Fn(&str) -> Option<usize>,
    slots: &'p mut [Option<Node<'a>>],
    left: Left,
    twice: Option<String>,
}

impl<'a> Visitor<'a> for &mut Picker<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            let Some(slot) = (self.slot_of)(&name).and_then(|place| self.slots.get_mut(place)) else {
                map.next_value::<IgnoredAny>()?;
                self.left.count += 1;
                if self.left.first.is_none() {
                    self.left.first = Some(name.into_owned());
                }
                continue;
            };
            let raw: &'a RawValue = map.next_value()?;
            if slot.replace(Node(raw.get())).is_some() {
                self.twice = Some(name.into_owned());
            }
        }
        Ok(())
    }
}

struct Entries;

impl<'a> Visitor<'a> for Entries {
    type Value = Vec<(Cow<'a, str>, Node<'a>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            let raw: &'a RawValue = map.next_value()?;
            out.push((name, Node(raw.get())));
        }
        Ok(out)
    }
}

struct Items;

impl<'a> Visitor<'a> for Items {
    type Value = Vec<Node<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut out = Vec::new();
        while let Some(raw) = seq.next_element::<&'a RawValue>()? {
            out.push(Node(raw.get()));
        }
        Ok(out)
    }
}

/// A field's name, borrowed where it has no escapes.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Self::Value, E> {
        Err(E::custom("not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> RejectCode {
        Node::parse(text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn broken_json_is_named_by_place() {
        assert_eq!(Node::parse(b"{}\xff").unwrap_err().detail, "is not UTF-8 at byte 2");
        assert_eq!(
            Node::parse(b"{\"a\":").unwrap_err().detail,
            "ends in the middle of a JSON value at line 1, column 5"
        );
        for text in ["", "{a}", "[1,]", "01", "{} {}", "\"\u{1}\"", "nul", "+1", "NaN", "\"a", "[1 2]", "'a'"] {
            assert_eq!(code(text), RejectCode::NotJson, "{text:?}");
        }
    }

    #[test]
    fn json_nested_10_000_deep_is_a_reject_in_every_place() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for text in [deep.clone(), format!("{{\"a\":{deep}}}"), "{\"a\":".repeat(10_000), "[".repeat(1_000_000)] {
            assert_eq!(code(&text), RejectCode::TooDeep);
        }
        let allowed = "[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX);
        assert!(Node::parse(allowed.as_bytes()).is_ok());
        assert!(
            Node::parse(format!("\"{}\\\"[\"", "[".repeat(1000)).as_bytes()).is_ok(),
            "brackets in strings do not nest"
        );
    }

    #[test]
    fn a_record_of_many_tiny_values_is_refused_before_it_takes_memory() {
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert_eq!(code(&many), RejectCode::TooLarge);
    }

    #[test]
    fn values_are_slices_of_the_record() {
        let node = Node::parse(br#" {"n": 1.50e1 , "s":"a\u00e9\n","t":"plain","o":{"x":[1, {"y":null}]}} "#).unwrap();
        let [n, s, t, o, missing] = node.fields(["n", "s", "t", "o", "z"]).unwrap().unwrap();
        assert_eq!((n.unwrap().raw(), n.unwrap().kind()), ("1.50e1", Kind::Number));
        assert_eq!(s.unwrap().string().unwrap().unwrap(), "aé\n");
        assert!(matches!(t.unwrap().string(), Ok(Some(Cow::Borrowed("plain")))));
        let items = o.unwrap().field("x").unwrap().unwrap().items().unwrap().unwrap();
        assert_eq!(items[1].entries().unwrap()[0].0, "y");
        assert!(items[1].field("y").unwrap().unwrap().is_null());
        assert_eq!(missing, None);
    }

    #[test]
    fn a_name_that_is_asked_for_may_stand_once() {
        let node = Node::parse(br#"{"a":1,"b":2,"\u0061":3,"c":4,"c":5}"#).unwrap();
        assert_eq!(node.field("a").unwrap_err().code, RejectCode::DuplicateField);
        assert_eq!(node.field("b").unwrap().unwrap().raw(), "2");
        let mut slots = [None];
        let left = node.pick(&|name| (name == "b").then_some(0), &mut slots).unwrap().unwrap();
        assert_eq!(left, Left { count: 4, first: Some("a".into()) });
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text() {
        let node = Node::parse(br#"{"a":"\ud800"}"#).unwrap();
        assert_eq!(node.field("a").unwrap().unwrap().string().unwrap_err().code, RejectCode::NotJson);
        assert!(Node::parse(br#"{"\ud800":1}"#).and_then(|n| n.field("a")).is_err());
    }
}
