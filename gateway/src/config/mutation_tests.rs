//! The example's files, changed at random: read, or refused with a line of the file.

use super::{FILES, Found, load};
use proptest::prelude::*;
use proptest::sample::Index;
use std::path::Path;
use tempfile::TempDir;

/// What a slip of the hand, or an attacker, puts into a file.
const PIECES: [&str; 24] = [
    "",
    " ",
    "\n",
    "\t",
    ":",
    "-",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "0",
    "-1",
    "1e999",
    "99999999999999999999",
    "null",
    "~",
    "\"",
    "'",
    "#",
    "*a",
    "&a ",
    "!!binary ",
    "\u{feff}",
];

/// One change of a text: so many characters at a position are replaced by a piece.
fn change(text: &str, at: Index, length: usize, piece: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let begin = at.index(characters.len() + 1);
    let end = (begin + length).min(characters.len());
    let whole = |part: &[char]| part.iter().collect::<String>();
    whole(&characters[..begin]) + piece + &whole(&characters[end..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.min(64), ..ProptestConfig::default() })]

    #[test]
    fn a_changed_configuration_is_read_or_refused_with_a_line_of_the_file(
        changes in prop::collection::vec((0..FILES.len(), any::<Index>(), 0..12_usize, 0..PIECES.len()), 1..5),
    ) {
        let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../config"));
        let dir = TempDir::new().expect("a directory");
        let mut texts = FILES.map(|file| std::fs::read_to_string(examples.join(file)).expect("readable"));
        for (file, at, length, piece) in changes {
            texts[file] = change(&texts[file], at, length, PIECES[piece]);
        }
        for (file, text) in FILES.iter().zip(&texts) {
            std::fs::write(dir.path().join(file), text).expect("written");
        }
        match (load(dir.path(), &Found::new()), load(dir.path(), &Found::new())) {
            (Ok(once), Ok(again)) => prop_assert_eq!(once.written, again.written),
            (Err(report), Err(_)) => {
                prop_assert!(!report.0.is_empty());
                for problem in report.0 {
                    let at = FILES.iter().position(|file| problem.file.ends_with(file));
                    let lines = at.map_or(0, |at| texts[at].lines().count());
                    prop_assert!(problem.line <= lines + 1, "{}:{}", problem.file, problem.line);
                    prop_assert!(!problem.message.is_empty());
                }
            }
            _ => prop_assert!(false, "the same files are read once and refused once"),
        }
    }
}
