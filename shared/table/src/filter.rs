//! The small predicate language of `--where`: `column op literal` joined by AND, over typed values.
//!
//! Neighbours: `scan` prunes partitions, buckets and files by it and filters merged rows. Grammar:
//! `predicate := term ("and" term)*`, `term := column ("=" | "!=" | "<>" | "<" | "<=" | ">" | ">=") literal | column "is" ["not"] "null"`,
//! literals are numbers, 'quoted text' (two quotes inside for one) or true/false.
//! Invariants: 1. a comparison with null is false (SQL); 2. a predicate names only columns of the schema.

use std::cmp::Ordering;

use siltstone_format::{
    schema::TableSchema,
    types::{DataType, TypeKind},
    value::Value,
};

use crate::{error::TableError, text};

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=` or `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `is null`
    IsNull,
    /// `is not null`
    IsNotNull,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// Index of the column in the schema.
    pub column: usize,
    /// Operator.
    pub operator: Operator,
    /// Right side, typed as the column; null for the null tests.
    pub literal: Value,
}

/// Terms that must all hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// The terms.
    pub terms: Vec<Term>,
}

impl Filter {
    /// Parses `text` against the columns of `schema`.
    ///
    /// # Errors
    /// Names the unexpected word, the unknown column or the literal that does not fit the column's type.
    pub fn parse(text: &str, schema: &TableSchema) -> Result<Self, TableError> {
        let tokens = tokens(text)?;
        let mut terms = Vec::new();
        let mut rest = tokens.as_slice();
        loop {
            let (term, after) = term(rest, schema)?;
            terms.push(term);
            match after {
                [] => return Ok(Self { terms }),
                [Token::Word(and), more @ ..] if and.eq_ignore_ascii_case("and") => rest = more,
                [other, ..] => return Err(unexpected(other, "`and` or the end")),
            }
        }
    }

    /// Whether a row (values in schema order) passes.
    #[must_use]
    pub fn accepts(&self, row: &[Value]) -> bool {
        self.terms.iter().all(|t| row.get(t.column).is_some_and(|v| t.accepts(v)))
    }

    /// Whether some value between `min` and `max` (null: unknown) of `column` could pass.
    #[must_use]
    pub fn may_accept_range(&self, column: usize, min: &Value, max: &Value) -> bool {
        self.terms.iter().filter(|t| t.column == column).all(|t| t.may_accept_range(min, max))
    }

    /// The single value that `column` must equal, if a term says so.
    #[must_use]
    pub fn equal_to(&self, column: usize) -> Option<&Value> {
        self.terms.iter().find(|t| t.column == column && t.operator == Operator::Equal).map(|t| &t.literal)
    }
}

impl Term {
    /// Whether `value` passes.
    #[must_use]
    pub fn accepts(&self, value: &Value) -> bool {
        match self.operator {
            Operator::IsNull => value.is_null(),
            Operator::IsNotNull => !value.is_null(),
            _ if value.is_null() => false,
            operator => {
                let order = value.compare(&self.literal);
                match operator {
                    Operator::Equal => order == Ordering::Equal,
                    Operator::NotEqual => order != Ordering::Equal,
                    Operator::Less => order == Ordering::Less,
                    Operator::LessOrEqual => order != Ordering::Greater,
                    Operator::Greater => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                }
            }
        }
    }

    fn may_accept_range(&self, min: &Value, max: &Value) -> bool {
        let below_min = !min.is_null() && self.literal.compare(min) == Ordering::Less;
        let above_max = !max.is_null() && self.literal.compare(max) == Ordering::Greater;
        match self.operator {
            Operator::Equal => !below_min && !above_max,
            Operator::Less => min.is_null() || min.compare(&self.literal) == Ordering::Less,
            Operator::LessOrEqual => !below_min,
            Operator::Greater => max.is_null() || max.compare(&self.literal) == Ordering::Greater,
            Operator::GreaterOrEqual => !above_max,
            Operator::NotEqual | Operator::IsNull | Operator::IsNotNull => true,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(String),
    Text(String),
}

fn tokens(input: &str) -> Result<Vec<Token>, TableError> {
    let mut tokens = Vec::new();
    let mut chars = input.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_whitespace() {
            chars.next();
        } else if c == '\'' {
            chars.next();
            tokens.push(Token::Text(quoted(&mut chars, '\'')?));
        } else if c == '"' || c == '`' {
            chars.next();
            tokens.push(Token::Word(quoted(&mut chars, c)?));
        } else if "=<>!".contains(c) {
            tokens.push(Token::Symbol(take_while(&mut chars, |c| "=<>!".contains(c))));
        } else {
            tokens.push(Token::Word(take_while(&mut chars, |c| !c.is_whitespace() && !"=<>!'\"`".contains(c))));
        }
    }
    if tokens.is_empty() {
        return Err(TableError::invalid("the filter is empty: write for example  status = 'O' and amount > 10".into()));
    }
    Ok(tokens)
}

fn take_while(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    while let Some(c) = chars.next_if(|c| keep(*c)) {
        out.push(c);
    }
    out
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Result<String, TableError> {
    let mut out = String::new();
    loop {
        match chars.next() {
            Some(c) if c == quote => {
                if chars.next_if_eq(&quote).is_none() {
                    return Ok(out);
                }
                out.push(quote);
            }
            Some(c) => out.push(c),
            None => return Err(TableError::invalid(format!("a {quote} in the filter is never closed"))),
        }
    }
}

fn unexpected(token: &Token, wanted: &str) -> TableError {
    let shown = match token {
        Token::Word(w) | Token::Symbol(w) => w.clone(),
        Token::Text(t) => format!("'{t}'"),
    };
    TableError::invalid(format!("unexpected `{shown}` in the filter, expected {wanted}"))
}

fn term<'t>(tokens: &'t [Token], schema: &TableSchema) -> Result<(Term, &'t [Token]), TableError> {
    let [Token::Word(name), rest @ ..] = tokens else {
        return Err(tokens.first().map_or_else(
            || TableError::invalid("the filter ends where a column name should stand".into()),
            |t| unexpected(t, "a column name"),
        ));
    };
    let column = schema.fields.iter().position(|f| f.name == *name).ok_or_else(|| {
        let known: Vec<_> = schema.fields.iter().map(|f| f.name.as_str()).collect();
        TableError::invalid(format!("there is no column `{name}`; columns: {}", known.join(", ")))
    })?;
    match rest {
        [Token::Word(is), Token::Word(not), Token::Word(null), rest @ ..]
            if is.eq_ignore_ascii_case("is")
                && not.eq_ignore_ascii_case("not")
                && null.eq_ignore_ascii_case("null") =>
        {
            Ok((Term { column, operator: Operator::IsNotNull, literal: Value::Null }, rest))
        }
        [Token::Word(is), Token::Word(null), rest @ ..]
            if is.eq_ignore_ascii_case("is") && null.eq_ignore_ascii_case("null") =>
        {
            Ok((Term { column, operator: Operator::IsNull, literal: Value::Null }, rest))
        }
        [Token::Symbol(symbol), Token::Word(literal) | Token::Text(literal), rest @ ..] => {
            let operator = operator(symbol)?;
            let data_type = schema.fields.get(column).map(|f| f.data_type.clone());
            let data_type = data_type.unwrap_or(DataType { kind: TypeKind::Boolean, nullable: true });
            let literal = text::parse_value(literal, &data_type)
                .map_err(|e| TableError::invalid(format!("in the filter on `{name}`: {e}")))?;
            Ok((Term { column, operator, literal }, rest))
        }
        _ => Err(TableError::invalid(format!("after column `{name}` the filter needs an operator and a value"))),
    }
}

fn operator(symbol: &str) -> Result<Operator, TableError> {
    Ok(match symbol {
        "=" | "==" => Operator::Equal,
        "!=" | "<>" => Operator::NotEqual,
        "<" => Operator::Less,
        "<=" => Operator::LessOrEqual,
        ">" => Operator::Greater,
        ">=" => Operator::GreaterOrEqual,
        other => return Err(unexpected(&Token::Symbol(other.to_owned()), "one of = != < <= > >=")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATORS: [Operator; 6] = [
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Greater,
        Operator::GreaterOrEqual,
    ];

    /// Of every small range and literal: a range with a match is never left out, and one without is, but for `!=`.
    #[test]
    fn a_range_is_left_out_where_no_value_in_it_can_pass() {
        for (operator, literal, min, max) in OPERATORS.into_iter().flat_map(|operator| {
            (0..6).flat_map(move |literal| {
                (1..5).flat_map(move |min| (min..5).map(move |max| (operator, literal, min, max)))
            })
        }) {
            let filter = Filter { terms: vec![Term { column: 0, operator, literal: Value::Int(literal) }] };
            let passes = (min..=max).any(|value| filter.accepts(&[Value::Int(value)]));
            let may = filter.may_accept_range(0, &Value::Int(min), &Value::Int(max));
            assert_eq!(may, passes || operator == Operator::NotEqual, "{min}..={max} {operator:?} {literal}");
            assert!(filter.may_accept_range(1, &Value::Int(min), &Value::Int(max)), "another column");
        }
    }

    #[test]
    fn a_bound_that_is_not_known_leaves_nothing_out() {
        for operator in OPERATORS {
            let term = Term { column: 0, operator, literal: Value::Int(3) };
            assert!(term.may_accept_range(&Value::Null, &Value::Null), "{operator:?}");
            for value in [1, 3, 5].map(Value::Int).into_iter().filter(|value| term.accepts(value)) {
                assert!(term.may_accept_range(&value, &Value::Null), "{operator:?} from {value:?}");
                assert!(term.may_accept_range(&Value::Null, &value), "{operator:?} up to {value:?}");
            }
        }
    }
}
