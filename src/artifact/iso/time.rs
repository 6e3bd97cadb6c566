//! The two ways to write a time on a disc, both in UTC.
//!
//! Spec: ECMA-119, 8.4.26.1 (17 bytes, in volume descriptors) and 9.1.5 (7 bytes, in directory records).

use kfactory_layers::time::rfc3339;

use super::IsoError;

/// A directory record counts years from here, in one byte.
const FIRST_YEAR: i64 = 1900;
const SECS_PER_DAY: i64 = 86_400;

/// No time: what a volume descriptor says of an expiration that is not set.
pub(super) const NEVER: [u8; 17] = *b"0000000000000000\0";

/// One moment in both forms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) long: [u8; 17],
    pub(super) short: [u8; 7],
}

impl Stamp {
    /// # Errors
    ///
    /// The year is before 1900 or after 2155.
    pub(super) fn of(epoch_secs: i64) -> Result<Self, IsoError> {
        let text = rfc3339(epoch_secs);
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
        let number = |from: usize, to: usize| {
            digits[from..to]
                .iter()
                .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
        };
        let year = u8::try_from(number(0, 4) - FIRST_YEAR)
            .map_err(|_| IsoError::Time { secs: epoch_secs })?;
        let [month, day, hour, minute, second] =
            [4, 6, 8, 10, 12].map(|at| number(at, at + 2) as u8);
        let mut long = *b"0000000000000000\0";
        long[..14].copy_from_slice(&digits[..14]);
        Ok(Self {
            long,
            short: [year, month, day, hour, minute, second, 0],
        })
    }
}

/// Returns the seconds since 1970 that the seven bytes of a directory record say; nonsense gives some number.
pub(super) fn epoch_secs(short: [u8; 7]) -> i64 {
    let [year, month, day, hour, minute, second, zone] = short;
    let days = days_from_civil(FIRST_YEAR + i64::from(year), month.into(), day.into());
    let of_day = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    // The zone counts quarters of an hour east of Greenwich.
    days * SECS_PER_DAY + of_day - i64::from(zone.cast_signed()) * 15 * 60
}

/// Converts a date to days since 1970, counting years from March so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_YEAR_0_MARCH: i64 = 719_468;
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (153 * month + 2) / 5 + day - 1 - DAYS_FROM_YEAR_0_MARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same_moment() {
        let stamp = Stamp::of(951_782_399).expect("in range");
        assert_eq!(&stamp.long, b"2000022823595900\0");
        assert_eq!(stamp.short, [100, 2, 28, 23, 59, 59, 0]);
    }

    #[test]
    fn a_written_time_reads_back() {
        for secs in [0, 951_782_400, 1_709_251_199, 4_107_542_400, -2_208_988_800] {
            let stamp = Stamp::of(secs).expect("in range");
            assert_eq!(epoch_secs(stamp.short), secs);
        }
        assert_eq!(epoch_secs([70, 1, 1, 1, 0, 0, 4]), 0, "an hour east");
    }

    #[test]
    fn years_that_do_not_fit_a_byte_are_refused() {
        for secs in [-2_208_988_801, 5_869_583_999 + 1, i64::MAX, i64::MIN] {
            assert!(Stamp::of(secs).is_err(), "{secs}");
        }
        assert!(Stamp::of(5_869_583_999).is_ok(), "the end of 2155");
    }
}
