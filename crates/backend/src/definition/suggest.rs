//! Suggestions for misspelled names.

/// The maximum length of a name in bytes; longer names get no suggestion, because a comparison
/// takes time in the product of both lengths.
const MAX_LENGTH: usize = 64;

/// Returns the candidate that `name` is most likely a misspelling of: with at most one mistake per
/// three letters, and at least one allowed.
pub(super) fn closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let letters = letters(name)?;
    let limit = (letters.len() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| Some((distance(&letters, &self::letters(candidate)?), candidate)))
        .filter(|(mistakes, _)| *mistakes <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns `; did you mean 'x'?` for the candidate that `name` is most likely a misspelling of, or
/// an empty text.
pub(crate) fn did_you_mean<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    closest(name, candidates).map_or_else(String::new, |candidate| format!("; did you mean '{candidate}'?"))
}

/// Returns the letters to compare, in lower case; `None` if the name is too long.
fn letters(name: &str) -> Option<Vec<char>> {
    (name.len() <= MAX_LENGTH).then(|| name.chars().flat_map(char::to_lowercase).collect())
}

/// Returns the number of letters to insert, remove, replace or swap with a neighbour to turn one
/// name into the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for row in 0..=from.len() {
        for column in 0..=to.len() {
            rows[row][column] = if row == 0 || column == 0 {
                row + column
            } else {
                let is_same = from[row - 1] == to[column - 1];
                let is_swapped =
                    row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
                let replaced = rows[row - 1][column - 1] + usize::from(!is_same);
                let swapped = if is_swapped { rows[row - 2][column - 2] + 1 } else { usize::MAX };
                replaced.min(swapped).min(rows[row - 1][column] + 1).min(rows[row][column - 1] + 1)
            };
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_names_with_few_mistakes() {
        let keys = ["read", "write", "apply_when", "autoConfirm"];
        for (name, expected) in [
            ("raed", Some("read")),
            ("applyWhen", Some("apply_when")),
            ("autoconfirm", Some("autoConfirm")),
            ("wirte", Some("write")),
            ("colour", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(closest(name, keys), expected, "{name}");
        }
        assert_eq!(closest(&"read".repeat(1000), keys), None);
        assert_eq!(did_you_mean("raed", keys), "; did you mean 'read'?");
        assert_eq!(did_you_mean("colour", keys), "");
    }
}
