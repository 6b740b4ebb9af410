//! Durations, sizes, percentages and status ranges: from text and back.
//!
//! Pure; knows no keys and no ranges. All arithmetic is on integers, so `1.1s` is 1100 ms exactly.

use std::time::Duration;

/// Text that is not a quantity of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnitError {
    #[error("no number before the unit")]
    NoNumber,
    #[error("unit missing")]
    NoUnit,
    #[error("unknown unit")]
    UnknownUnit,
    #[error("too fine")]
    TooFine,
    #[error("too large")]
    TooLarge,
}

/// Units of a duration in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of a size in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 3] = [("MiB", 1024 * 1024), ("KiB", 1024), ("B", 1)];

/// `500ms`, `2s`, `1.5s`, `30m`, `12h`, `1d`; whole milliseconds.
pub(super) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    scaled(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// The shortest text that [`parse_duration`] reads back, to the millisecond.
pub(crate) fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, size) = DURATION_UNITS
        .iter()
        .find(|(_, size)| millis.is_multiple_of(u128::from(*size)))
        .expect("every number is a multiple of the last unit, 1 ms");
    format!("{}{unit}", millis / u128::from(*size))
}

/// `512B`, `64KiB`, `1.5MiB`; whole bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, UnitError> {
    scaled(text, &SIZE_UNITS)
}

/// The shortest text that [`parse_size`] reads back.
pub(crate) fn format_size(bytes: u64) -> String {
    let found = SIZE_UNITS.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    match found {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => format!("{bytes}B"),
    }
}

/// `20%` or `0.5%` in basis points.
pub(super) fn parse_percent(text: &str) -> Result<u32, UnitError> {
    let points = scaled(text, &[("%", 100)])?;
    u32::try_from(points).map_err(|_| UnitError::TooLarge)
}

/// The text that [`parse_percent`] reads back.
pub(crate) fn format_percent(points: u32) -> String {
    let (whole, rest) = (points / 100, points % 100);
    match (rest / 10, rest % 10) {
        (0, 0) => format!("{whole}%"),
        (tenths, 0) => format!("{whole}.{tenths}%"),
        (tenths, hundredths) => format!("{whole}.{tenths}{hundredths}%"),
    }
}

/// A weight in ten-thousandths, with as many decimals as it has.
pub(crate) fn format_share(weight: u32) -> String {
    let unit = super::types::SHARE_UNIT;
    let decimals = format!("{:04}", weight % unit);
    let text = format!("{}.{}", weight / unit, decimals.trim_end_matches('0'));
    text.trim_end_matches('.').to_owned()
}

/// `200` or `200-299`, ascending, within 100 to 599.
pub(super) fn parse_statuses(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = parse_status(first.trim())?;
    let last = parse_status(last.trim())?;
    (first <= last).then_some((first, last))
}

fn parse_status(text: &str) -> Option<u16> {
    let is_plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = text.parse().ok().filter(|_| is_plain)?;
    (100..=599).contains(&status).then_some(status)
}

/// A decimal number followed by one of `units`, as a whole number of the base unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(UnitError::NoNumber);
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let (_, size) = units.iter().find(|(name, _)| *name == unit).ok_or(UnitError::UnknownUnit)?;
    let fraction = fraction.trim_end_matches('0');
    // Eighteen digits times the largest unit stay far below the limit of u128.
    if whole.len() > 18 || fraction.len() > 18 {
        return Err(if whole.len() > 18 { UnitError::TooLarge } else { UnitError::TooFine });
    }
    let size = u128::from(*size);
    let parse = |digits: &str| digits.parse::<u128>().unwrap_or(0);
    let parts = parse(fraction) * size;
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| UnitError::TooFine)?);
    if !parts.is_multiple_of(divisor) {
        return Err(UnitError::TooFine);
    }
    u64::try_from(parse(whole) * size + parts / divisor).map_err(|_| UnitError::TooLarge)
}
