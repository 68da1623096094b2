//! Selectors in one line: `app=web,tier in (a,b),!old`. Source: Kubernetes, "Labels and Selectors".

use super::selector::{
    InvalidSelector, KeySyntax, LabelKey, LabelSelector, MatchOperator, Requirement, parse_value, sorted,
};

/// Longest text read, bytes.
const MAX_BYTES: usize = 8 * 1024;

/// Reads a whole selector; empty text matches everything.
pub(super) fn parse(text: &str, syntax: KeySyntax) -> Result<LabelSelector, InvalidSelector> {
    if text.len() > MAX_BYTES {
        return Err(InvalidSelector::TooLarge(text.len()));
    }
    if text.trim().is_empty() {
        return Ok(LabelSelector::everything());
    }
    let requirements: Result<Vec<Requirement>, InvalidSelector> =
        split_outside_parentheses(text).map(|part| parse_requirement(text, part.trim(), syntax)).collect();
    Ok(LabelSelector::new(requirements?))
}

/// Cuts at commas that are not inside `(…)`.
fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.split(move |c| {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        c == ',' && !inside
    })
}

fn parse_requirement(text: &str, part: &str, syntax: KeySyntax) -> Result<Requirement, InvalidSelector> {
    let key = |name: &str| LabelKey::parse(name.trim(), syntax);
    let one = |value: &str| Ok(vec![parse_value(value.trim(), syntax)?]);
    if let Some(name) = part.strip_prefix('!') {
        return Ok(Requirement { key: key(name)?, operator: MatchOperator::DoesNotExist });
    }
    if part.ends_with(')') {
        return parse_list(text, part, syntax);
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(Requirement { key: key(name)?, operator: MatchOperator::NotIn(one(value)?) });
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement { key: key(name)?, operator: MatchOperator::In(one(value)?) });
    }
    if part.is_empty() || part.contains(char::is_whitespace) {
        return Err(syntax_error(text, part));
    }
    Ok(Requirement { key: key(part)?, operator: MatchOperator::Exists })
}

/// `key in (a, b)` or `key notin (a, b)`.
fn parse_list(text: &str, part: &str, syntax: KeySyntax) -> Result<Requirement, InvalidSelector> {
    let parsed = part.strip_suffix(')').and_then(|part| part.split_once('('));
    let Some((head, values)) = parsed else {
        return Err(syntax_error(text, part));
    };
    let values: Result<Vec<Box<str>>, InvalidSelector> =
        values.split(',').map(|value| parse_value(value.trim(), syntax)).collect();
    let values = sorted(values?);
    let mut words = head.split_whitespace();
    let (Some(name), Some(operator), None) = (words.next(), words.next(), words.next()) else {
        return Err(syntax_error(text, part));
    };
    let operator = match operator {
        "in" => MatchOperator::In(values),
        "notin" => MatchOperator::NotIn(values),
        _ => return Err(syntax_error(text, part)),
    };
    Ok(Requirement { key: LabelKey::parse(name, syntax)?, operator })
}

fn syntax_error(text: &str, near: &str) -> InvalidSelector {
    let cut = |text: &str| text.chars().take(128).collect();
    InvalidSelector::Syntax { text: cut(text), near: cut(near) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::LabelSet;

    #[test]
    fn texts() {
        let labels = LabelSet::parse(["k8s:app=web", "k8s:tier=front"]).unwrap();
        let cases = [
            ("", true),
            ("app=web", true),
            ("app == web", true),
            ("app!=web", false),
            ("old!=yes", true),
            ("app=web,tier in (front, back)", true),
            ("app=web,tier notin (front,back)", false),
            ("app", true),
            ("!app", false),
            ("! old , app", true),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
            assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn bad_texts_are_refused() {
        for bad in [",", "a,,b", "a b", "a in b", "a in (b", "a of (b)", "(b)", "=x", "a=b c", "in (a)"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
            }
        }
    }
}
