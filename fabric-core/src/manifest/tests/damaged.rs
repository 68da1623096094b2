//! Good documents, damaged at random: read or refused, never a panic, and what is read is stable.

use proptest::prelude::*;

use super::super::*;

const ALL_KINDS: &str = include_str!("../testdata/all-kinds.yaml");

/// Pieces that turn one construct into another.
const PIECES: [&str; 16] = [
    "",
    " ",
    "\n",
    "  ",
    "{}",
    "[]",
    ": ",
    "- ",
    "0",
    "-1",
    "99999",
    "null",
    "\"",
    "~",
    "spec: ",
    "matchLabels: {a: b}",
];

fn damage(cuts: &[(usize, usize, usize)]) -> String {
    let mut text: Vec<char> = ALL_KINDS.chars().collect();
    for &(at, length, piece) in cuts {
        let at = at % text.len();
        let end = (at + length).min(text.len());
        text.splice(at..end, PIECES[piece % PIECES.len()].chars());
    }
    text.into_iter().collect()
}

proptest! {
    #[test]
    fn damaged_documents_are_read_or_refused(
        cuts in proptest::collection::vec((any::<usize>(), 0_usize..12, any::<usize>()), 1..4),
    ) {
        match parse(&damage(&cuts)) {
            Ok(objects) => {
                for object in objects {
                    let again = Object::from_json(&object.to_json()).unwrap();
                    prop_assert_eq!(again.to_json(), object.to_json());
                    prop_assert_eq!(again, object);
                }
            }
            Err(error) => {
                prop_assert!(error.document >= 1);
                prop_assert!(error.line.is_some_and(|line| line >= 1));
                prop_assert!(!error.to_string().ends_with(' '));
            }
        }
    }
}
