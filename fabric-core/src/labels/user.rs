//! What a user may put on a workload: Kubernetes' label syntax, none of the system's keys.
//!
//! Source of the syntax: Kubernetes, "Labels and Selectors", section "Syntax and character set".

use super::label::{InvalidLabel, Label};
use super::well_known::RESERVED_KEY_PREFIXES;

const NAME_RULE: &str = "1 to 63 letters, digits, '-', '_' or '.', a letter or digit at both ends";
const VALUE_RULE: &str = "empty or at most 63 letters, digits, '-', '_' or '.', a letter or digit at both ends";
const PREFIX_RULE: &str = "at most 253 lower-case letters, digits, '-' or '.'";

/// Most labels that a user may give one workload.
pub const MAX_USER_LABELS: usize = 64;

/// A list of labels from a user that is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserLabels {
    /// One of them.
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    /// One key twice with different values.
    #[error("label key {0:?} is given twice")]
    DuplicateKey(String),
    /// Over [`MAX_USER_LABELS`].
    #[error("{0} labels, at most {MAX_USER_LABELS} are allowed")]
    TooMany(usize),
}

/// Parses `app=web`; the result has source `k8s`.
///
/// # Errors
/// When key or value are not as Kubernetes wants them, or the key is the system's.
pub fn parse(text: &str) -> Result<Label, InvalidLabel> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let refuse = |what, rule| InvalidLabel::Kubernetes { label: text.chars().take(128).collect(), what, rule };
    check_key(key).map_err(|(what, rule)| refuse(what, rule))?;
    if !is_value(value) {
        return Err(refuse("the value", VALUE_RULE));
    }
    if RESERVED_KEY_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
        return Err(InvalidLabel::ReservedKey(text.to_owned()));
    }
    Label::k8s(key, value)
}

/// Parses a list; sorted by key.
///
/// # Errors
/// When one is no good, a key has two values, or there are too many.
pub fn parse_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Label>, InvalidUserLabels> {
    let mut labels: Vec<Label> =
        texts.into_iter().take(2 * MAX_USER_LABELS).map(parse).collect::<Result<_, InvalidLabel>>()?;
    labels.sort_unstable();
    labels.dedup();
    if labels.len() > MAX_USER_LABELS {
        return Err(InvalidUserLabels::TooMany(labels.len()));
    }
    for pair in labels.windows(2) {
        if let [first, second] = pair
            && first.key() == second.key()
        {
            return Err(InvalidUserLabels::DuplicateKey(first.key().to_owned()));
        }
    }
    Ok(labels)
}

/// Parses `app=db,tier=back`, as the command line takes it. Empty text is no labels.
///
/// # Errors
/// As [`parse_list`].
pub fn parse_commas(text: &str) -> Result<Vec<Label>, InvalidUserLabels> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    parse_list(text.split(',').map(str::trim))
}

/// Whether Kubernetes takes the key.
pub fn is_key(key: &str) -> bool {
    check_key(key).is_ok()
}

/// Whether Kubernetes takes the value.
pub fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn check_key(key: &str) -> Result<(), (&'static str, &'static str)> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if crate::names::ObjectName::new(prefix).is_err() {
                return Err(("the key's prefix", PREFIX_RULE));
            }
            name
        }
        None => key,
    };
    if is_name(name) { Ok(()) } else { Err(("the key", NAME_RULE)) }
}

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends_well =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    ends_well && bytes.len() <= 63 && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_syntax() {
        for good in ["app=web", "app.kubernetes.io/name=web", "a=", "a", "A_b-c.d=X_1"] {
            assert_eq!(parse(good).unwrap().source(), "k8s", "{good}");
        }
        for bad in ["", "=v", "a b=c", "a=b c", "-a=b", "a=-b", "A.com/x=y", "/x=y", "a/b/c=d", "k8s:a=b", "a=b;c=d"] {
            assert!(matches!(parse(bad), Err(InvalidLabel::Kubernetes { .. })), "{bad}");
        }
        assert!(parse(&format!("{}=x", "k".repeat(64))).is_err());
        assert!(parse(&format!("k={}", "x".repeat(64))).is_err());
    }

    #[test]
    fn keys_of_the_system_cannot_be_given() {
        for bad in ["io.cilium.k8s.policy.cluster=us", "io.kubernetes.pod.namespace=kube-system"] {
            assert!(matches!(parse(bad), Err(InvalidLabel::ReservedKey(_))), "{bad}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(parse_commas("").unwrap(), vec![]);
        assert_eq!(parse_commas("b=2, a=1,a=1").unwrap().len(), 2);
        assert_eq!(parse_commas("a=1,a=2"), Err(InvalidUserLabels::DuplicateKey("a".to_owned())));
        let many: Vec<String> = (0..65).map(|n| format!("k{n}")).collect();
        assert_eq!(parse_list(many.iter().map(String::as_str)), Err(InvalidUserLabels::TooMany(65)));
    }
}
