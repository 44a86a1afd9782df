//! Items and counts as messages show them.

/// A text for a message: on one line, without control characters, at most 120 characters of it.
pub(crate) fn shown(text: &[u8]) -> String {
    const SHOWN_MAX: usize = 120;
    // No character is longer than four bytes.
    let begin = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_MAX + 4)]);
    let mut shown = String::new();
    let mut characters = begin.chars();
    for character in characters.by_ref().take(SHOWN_MAX) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A count with its noun: `1 task`, `2 tasks`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_item_is_one_short_line() {
        assert_eq!(shown(b"a\nb\t\x1b[2J\xff"), "a\\nb\\t\\u{1b}[2J\u{fffd}");
        assert_eq!(shown("ä".repeat(120).as_bytes()), "ä".repeat(120));
        assert_eq!(shown("ä".repeat(9_000).as_bytes()), "ä".repeat(120) + "…");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            (counted(1, "task"), counted(0, "task")),
            ("1 task".to_owned(), "0 tasks".to_owned())
        );
    }
}
