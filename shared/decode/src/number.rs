//! Decimal numbers from digits and from two's complement bytes, exactly and without allocation.
//!
//! Neighbours: `convert`. Invariants: 1. the result is the exact value or says which way it does not fit; 2. time is linear in the text,
//! whatever the exponent.

/// An unscaled value, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exact {
    Value(i128),
    /// More than 38 digits before the cut.
    TooLarge,
    /// Digits beyond the scale that are not zero.
    TooFine,
}

/// Decimal text (`-12.50e1`) as an unscaled value of `scale`; `None` when it is not a number.
pub(crate) fn parse_decimal(text: &str, scale: u8) -> Option<Exact> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (text, 0),
    };
    let negative = mantissa.starts_with('-');
    let digits = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !plain(whole) || !plain(fraction) {
        return None;
    }
    let count = i64::try_from(whole.len() + fraction.len()).ok()?;
    let shift = i64::from(scale) + exponent - i64::try_from(fraction.len()).ok()?;
    // With a negative shift the last digits lie beyond the scale: they must be zeros.
    let kept = usize::try_from((count + shift.min(0)).max(0)).ok()?;
    let mut digits = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0'));
    let mut value = Some(0_i128);
    for digit in digits.by_ref().take(kept) {
        value = value.and_then(|v| v.checked_mul(10)?.checked_add(digit));
    }
    if digits.any(|digit| digit != 0) {
        return Some(Exact::TooFine);
    }
    let value = match value {
        Some(0) => Some(0),
        value => value.and_then(|v| v.checked_mul(power_of_ten(shift.max(0))?)),
    };
    Some(value.map_or(Exact::TooLarge, |v| Exact::Value(if negative { -v } else { v })))
}

/// An exponent; one of more digits than any number needs counts as the largest.
fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(1 << 40);
    Some(if text.starts_with('-') { -size } else { size })
}

fn power_of_ten(exponent: i64) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// Two's complement, big-endian, as Java's `BigInteger.toByteArray`; `None` above 128 bits.
pub(crate) fn unscaled(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff_u8 } else { 0 };
    let mut wide = [fill; 16];
    let cut = bytes.len().saturating_sub(16);
    let (extra, rest) = bytes.split_at_checked(cut)?;
    wide.get_mut(16 - rest.len()..)?.copy_from_slice(rest);
    let value = i128::from_be_bytes(wide);
    (extra.iter().all(|b| *b == fill) && (value < 0) == (fill != 0)).then_some(value)
}

/// An unscaled value of scale `from` as one of scale `to`.
pub(crate) fn rescale(unscaled: i128, from: i32, to: u8) -> Exact {
    let shift = i64::from(to) - i64::from(from);
    let power = power_of_ten(shift.abs());
    match (unscaled, power) {
        (0, _) => Exact::Value(0),
        (_, Some(power)) if shift >= 0 => unscaled.checked_mul(power).map_or(Exact::TooLarge, Exact::Value),
        (_, None) if shift >= 0 => Exact::TooLarge,
        (_, Some(power)) if unscaled % power == 0 => Exact::Value(unscaled / power),
        _ => Exact::TooFine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_is_exact_or_says_why_not() {
        use Exact::{TooFine, TooLarge, Value};
        let cases = [
            ("0", 2, Some(Value(0))),
            ("-0.00", 0, Some(Value(0))),
            ("12.5", 2, Some(Value(1250))),
            ("-12.500", 1, Some(Value(-125))),
            ("1.25e1", 1, Some(Value(125))),
            ("125e-1", 1, Some(Value(125))),
            ("125e-1", 0, Some(TooFine)),
            (".5", 1, Some(Value(5))),
            ("5.", 0, Some(Value(5))),
            ("+7", 0, Some(Value(7))),
            ("0e999999999999999999999", 5, Some(Value(0))),
            ("1e999999999999999999999", 5, Some(TooLarge)),
            ("1e-999999999999999999999", 5, Some(TooFine)),
            ("100e-2", 0, Some(Value(1))),
            ("170141183460469231731687303715884105727", 0, Some(Value(i128::MAX))),
            ("170141183460469231731687303715884105728", 0, Some(TooLarge)),
            ("", 0, None),
            (".", 0, None),
            ("-", 0, None),
            ("1e", 0, None),
            ("1e+", 0, None),
            ("--1", 0, None),
            ("1.2.3", 0, None),
            ("0x10", 0, None),
            ("١", 0, None),
        ];
        for (text, scale, wanted) in cases {
            assert_eq!(parse_decimal(text, scale), wanted, "{text} at scale {scale}");
        }
    }

    #[test]
    fn bytes_are_twos_complement() {
        assert_eq!(unscaled(&[0xff]), Some(-1));
        assert_eq!(unscaled(&[0x00, 0x80]), Some(128));
        assert_eq!(unscaled(&i128::MIN.to_be_bytes()), Some(i128::MIN));
        let mut longer = vec![0; 9];
        longer.extend_from_slice(&i128::MAX.to_be_bytes());
        assert_eq!(unscaled(&longer), Some(i128::MAX));
        longer[9] = 0x80;
        assert_eq!(unscaled(&longer), None, "127 bits and a sign are all there is");
        assert_eq!(unscaled(&[1; 17]), None);
    }

    #[test]
    fn scales_change_without_loss_or_not_at_all() {
        assert_eq!(rescale(150, 2, 1), Exact::Value(15));
        assert_eq!(rescale(155, 2, 1), Exact::TooFine);
        assert_eq!(rescale(15, -3, 2), Exact::Value(1_500_000));
        assert_eq!(rescale(1, -40, 0), Exact::TooLarge);
        assert_eq!(rescale(1, i32::MAX, 0), Exact::TooFine);
        assert_eq!(rescale(0, i32::MIN, 38), Exact::Value(0));
    }
}
