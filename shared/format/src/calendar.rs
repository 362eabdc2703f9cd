//! Days and dates: the proleptic Gregorian calendar, as Java's `LocalDate` has it.
//!
//! Above: partition names, and all who read or write dates as text (`decode`, `table`). The arithmetic is Howard Hinnant's, of his "chrono-
//! compatible low-level date algorithms". Invariant: 1. the two functions are each other's inverse for every date of years that 64-bit
//! milliseconds reach.

/// Days before 1970-01-01 of 0000-03-01, with which a year begins here: its leap day is its last.
const EPOCH: i64 = 719_468;
/// Days of 400 years, after which the calendar begins anew.
const ERA: i64 = 146_097;

/// Days since 1970-01-01 of a date; the month is 1 to 12. Days beyond a month's end run into the next month.
#[must_use]
pub const fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH
}

/// Year, month and day of days since 1970-01-01.
#[must_use]
pub const fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + EPOCH;
    let (era, day_of_era) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (-719_162, (1, 1, 1)),
            (-719_529, (-1, 12, 31)),
            (2_932_897, (10_000, 1, 1)),
        ] {
            assert_eq!((date_of(days), days_of(date.0, date.1, date.2)), (date, days));
        }
        let mut last = date_of(-800_000);
        for days in -799_999..=100_000 {
            let date = date_of(days);
            assert!(date > last && days_of(date.0, date.1, date.2) == days, "{date:?}");
            last = date;
        }
        for days in [i64::MIN / 86_400_000, i64::MAX / 86_400_000] {
            let (year, month, day) = date_of(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }

    #[test]
    fn a_day_beyond_its_month_is_in_the_next() {
        assert_eq!(date_of(days_of(2023, 2, 29)), (2023, 3, 1));
        assert_eq!(date_of(days_of(2024, 2, 31)), (2024, 3, 2));
    }
}
