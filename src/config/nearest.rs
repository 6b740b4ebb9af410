//! The known key that a misspelt one most likely meant.
//!
//! Pure; knows no keys of its own.

/// No known key is nearly as long, and to compare takes time by the length.
const LONGEST: usize = 64;

/// The nearest of `known` to `given`, if it is near enough to be worth naming.
pub(super) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    if given.len() > LONGEST {
        return None;
    }
    // A third of the letters may be wrong; beyond that a suggestion is a guess.
    let limit = (given.chars().count() / 3).clamp(1, 4);
    known
        .iter()
        .map(|candidate| (distance(&given.to_lowercase(), candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, replace or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_swaps() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("paths", "paths", 0),
            ("path", "paths", 1),
            ("wieght", "weight", 1),
            ("balence", "balance", 1),
            ("kitten", "sitting", 3),
            ("größe", "grosse", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn nearest_names_only_what_is_near() {
        let known = ["instances", "retry", "drain", "path"];
        assert_eq!(nearest("instanses", &known), Some("instances"));
        assert_eq!(nearest("Instances", &known), Some("instances"));
        assert_eq!(nearest("rerty", &known), Some("retry"));
        assert_eq!(nearest("pth", &known), Some("path"));
        assert_eq!(nearest("tls", &known), None);
        assert_eq!(nearest("", &known), None);
    }
}
