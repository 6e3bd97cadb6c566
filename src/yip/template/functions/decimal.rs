//! Arithmetic on numbers with a point, exact in the decimal digits that they are written with: 0.1 and 0.2 are 0.3.

use super::super::value::Value;
use super::numbers::to_float;
use super::{Args, Fault, Outcome};

/// Digits behind the point of a quotient.
const QUOTIENT_DIGITS: i32 = 16;

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "addf" => fold(args, Decimal::ZERO, 0, Decimal::plus),
        "add1f" => args
            .exactly(1)
            .and_then(|()| fold(args, Decimal::ONE, 0, Decimal::plus)),
        "subf" => from_first(args, |a, b| a.plus(b.negative())),
        "mulf" => from_first(args, Decimal::times),
        "divf" => divided(args),
        "maxf" => extreme(args, f64::max),
        "minf" => extreme(args, f64::min),
        "round" => args.at_least(2).and_then(|()| round(args)),
        _ => return None,
    })
}

fn fold(
    args: &Args,
    start: Decimal,
    from: usize,
    combine: impl Fn(Decimal, Decimal) -> Option<Decimal>,
) -> Outcome {
    let mut sum = start;
    for value in args.from(from) {
        sum = combine(sum, Decimal::of(to_float(value))?).ok_or_else(too_long)?;
    }
    sum.to_float().map(Value::Float)
}

fn from_first(args: &Args, combine: impl Fn(Decimal, Decimal) -> Option<Decimal>) -> Outcome {
    args.at_least(1)?;
    let start = Decimal::of(to_float(args.any(0)?))?;
    fold(args, start, 1, combine)
}

fn divided(args: &Args) -> Outcome {
    if args.from(1).iter().any(|value| to_float(value) == 0.0) {
        return Err("decimal division by 0".into());
    }
    from_first(args, Decimal::by)
}

fn extreme(args: &Args, choose: impl Fn(f64, f64) -> f64) -> Outcome {
    args.at_least(1)?;
    let first = to_float(args.any(0)?);
    let numbers = args.from(1).iter().map(to_float);
    Ok(Value::Float(numbers.fold(first, choose)))
}

/// Rounds to a number of digits; a third argument says from which fraction on upwards.
fn round(args: &Args) -> Outcome {
    let power = 10f64.powi(i32::try_from(args.int(1)?).map_err(|_| too_long())?);
    let up_from = match args.from(2).first() {
        Some(value) => to_float(value),
        None => 0.5,
    };
    let scaled = to_float(args.any(0)?) * power;
    let whole = match scaled.fract() >= up_from {
        true => scaled.ceil(),
        false => scaled.floor(),
    };
    Ok(Value::Float(whole / power))
}

fn too_long() -> Fault {
    Fault::Unsupported("it has more digits than are available".into())
}

/// `digits` with the point moved by `exponent`.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    const ZERO: Self = Self {
        digits: 0,
        exponent: 0,
    };
    const ONE: Self = Self {
        digits: 1,
        exponent: 0,
    };

    /// Returns the shortest decimal number that stands for `number`.
    fn of(number: f64) -> Result<Self, Fault> {
        if !number.is_finite() {
            return Err("Cannot create a Decimal from NaN or Inf".into());
        }
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let fraction = mantissa
            .split_once('.')
            .map_or(0, |(_, digits)| digits.len());
        let exponent: i32 = exponent.parse().map_err(|_| too_long())?;
        Ok(Self {
            digits: mantissa.replace('.', "").parse().map_err(|_| too_long())?,
            exponent: exponent - i32::try_from(fraction).map_err(|_| too_long())?,
        })
    }

    fn to_float(self) -> Result<f64, Fault> {
        let text = format!("{}e{}", self.digits, self.exponent);
        text.parse().map_err(|_| too_long())
    }

    fn negative(self) -> Self {
        Self {
            digits: -self.digits,
            ..self
        }
    }

    /// Writes the same number with a lower exponent.
    fn scaled_to(self, exponent: i32) -> Option<i128> {
        let zeros = u32::try_from(self.exponent.checked_sub(exponent)?).ok()?;
        match self.digits {
            0 => Some(0),
            digits => digits.checked_mul(10i128.checked_pow(zeros)?),
        }
    }

    fn plus(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        let digits = self
            .scaled_to(exponent)?
            .checked_add(other.scaled_to(exponent)?)?;
        Some(Self { digits, exponent })
    }

    fn times(self, other: Self) -> Option<Self> {
        Some(Self {
            digits: self.digits.checked_mul(other.digits)?,
            exponent: self.exponent.checked_add(other.exponent)?,
        })
    }

    /// Divides, rounding halves away from zero.
    fn by(self, other: Self) -> Option<Self> {
        // The quotient counts units of 10^-16.
        let zeros = self
            .exponent
            .checked_sub(other.exponent)?
            .checked_add(QUOTIENT_DIGITS)?;
        let power = |zeros: i32| u32::try_from(zeros).map_or(Some(1), |it| 10i128.checked_pow(it));
        let dividend = self.digits.checked_mul(power(zeros)?)?;
        let divisor = other.digits.checked_mul(power(-zeros)?)?;
        let digits = dividend.checked_div(divisor)?;
        let rest = dividend.checked_rem(divisor)?;
        let is_up = rest.checked_abs()?.checked_mul(2)? >= divisor.checked_abs()?;
        let sign = if (dividend < 0) == (divisor < 0) {
            1
        } else {
            -1
        };
        Some(Self {
            digits: digits.checked_add(if is_up { sign } else { 0 })?,
            exponent: -QUOTIENT_DIGITS,
        })
    }
}
