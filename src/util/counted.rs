//! Counts in texts.

use std::fmt::Display;

/// Returns a count with its noun: `1 entity`, `2 entities`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == N::from(1) { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let entities = |count: i64| counted(count, "entity", "entities");
        assert_eq!(
            [0, 1, 2, -1].map(entities),
            ["0 entities", "1 entity", "2 entities", "-1 entities"]
        );
    }
}
