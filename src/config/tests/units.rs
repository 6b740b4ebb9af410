//! Units: tables of what is read and refused, and that what is written is read back.

use std::time::Duration;

use proptest::prelude::*;

use crate::config::units::{
    UnitError, format_duration, format_percent, format_size, parse_duration, parse_percent,
    parse_size, parse_statuses,
};

#[test]
fn durations_are_read_exactly() {
    for (text, millis) in [
        ("500ms", 500),
        ("2s", 2000),
        ("1.5s", 1500),
        ("1.1s", 1100),
        ("0.001s", 1),
        ("0s", 0),
        ("30m", 1_800_000),
        ("12h", 43_200_000),
        ("1d", 86_400_000),
        ("0.5d", 43_200_000),
        ("2 s", 2000),
        ("007s", 7000),
        ("1.50s", 1500),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
}

#[test]
fn durations_that_are_none_say_why() {
    for (text, error) in [
        ("", UnitError::NoNumber),
        ("s", UnitError::NoNumber),
        ("-1s", UnitError::NoNumber),
        (".5s", UnitError::NoNumber),
        ("1.s", UnitError::NoNumber),
        ("1.2.3s", UnitError::NoNumber),
        ("30", UnitError::NoUnit),
        ("1.5", UnitError::NoUnit),
        ("30sec", UnitError::UnknownUnit),
        ("30S", UnitError::UnknownUnit),
        ("1h30m", UnitError::UnknownUnit),
        ("1e3s", UnitError::UnknownUnit),
        ("0.5ms", UnitError::TooFine),
        ("0.0001s", UnitError::TooFine),
        ("0.0000000000000000001s", UnitError::TooFine),
        ("999999999999999999d", UnitError::TooLarge),
        ("9999999999999999999999999999999999999999s", UnitError::TooLarge),
    ] {
        assert_eq!(parse_duration(text), Err(error), "{text}");
    }
}

#[test]
fn sizes_and_percentages() {
    for (text, bytes) in [("0B", 0), ("64KiB", 65536), ("1.5MiB", 1_572_864), ("3B", 3)] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    assert_eq!(parse_size("64KB"), Err(UnitError::UnknownUnit));
    assert_eq!(parse_size("0.5B"), Err(UnitError::TooFine));
    for (text, points) in [("0%", 0), ("20%", 2000), ("0.5%", 50), ("0.05%", 5), ("100%", 10_000)] {
        assert_eq!(parse_percent(text), Ok(points), "{text}");
    }
    assert_eq!(parse_percent("0.005%"), Err(UnitError::TooFine));
    assert_eq!(parse_percent("20"), Err(UnitError::NoUnit));
    assert_eq!(parse_percent("99999999999%"), Err(UnitError::TooLarge));
}

#[test]
fn statuses_are_one_or_a_range() {
    for (text, expected) in [
        ("200", Some((200, 200))),
        ("200-299", Some((200, 299))),
        ("200 - 299", Some((200, 299))),
        ("100-599", Some((100, 599))),
        ("99", None),
        ("600", None),
        ("299-200", None),
        ("2xx", None),
        ("200-", None),
        ("-200", None),
        ("+200", None),
        ("0200", None),
        ("", None),
    ] {
        assert_eq!(parse_statuses(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(millis in 0_u64..31_536_000_000_000, points in 0_u32..10_001) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        prop_assert_eq!(parse_size(&format_size(millis)), Ok(millis));
        prop_assert_eq!(parse_percent(&format_percent(points)), Ok(points));
    }

    #[test]
    fn no_text_makes_units_panic(text in ".{0,60}", digits in "[0-9.]{0,60}(ms|s|d|%|MiB)?") {
        for text in [text, digits] {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = parse_percent(&text);
            let _ = parse_statuses(&text);
        }
    }
}
