//! Cilium's annotations for global services, and their older names. Source: `wire.md` section 6.

use std::collections::BTreeMap;

use super::{Affinity, Sharing};

/// Backends of other clusters serve the service too.
pub const GLOBAL: &str = "service.cilium.io/global";
/// Its own backends are offered to other clusters.
pub const SHARED: &str = "service.cilium.io/shared";
/// Whose backends are preferred.
pub const AFFINITY: &str = "service.cilium.io/affinity";

/// Older names of the three.
pub const GLOBAL_ALIAS: &str = "io.cilium/global-service";
/// Older name of [`SHARED`].
pub const SHARED_ALIAS: &str = "io.cilium/shared-service";
/// Older name of [`AFFINITY`].
pub const AFFINITY_ALIAS: &str = "io.cilium/service-affinity";

/// Annotations that would change how a service is balanced, and that nothing here heeds.
pub const UNSUPPORTED: [&str; 7] = [
    "service.cilium.io/forwarding-mode",
    "service.cilium.io/lb-algorithm",
    "service.cilium.io/node",
    "service.cilium.io/node-selector",
    "service.cilium.io/proxy-delegation",
    "service.cilium.io/src-ranges-policy",
    "service.cilium.io/type",
];

/// Why [`UNSUPPORTED`] ones are refused.
pub const UNSUPPORTED_REASON: &str = "it has no effect here; remove the annotation";

/// An annotation whose value means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}: {value:?} {why}")]
pub struct InvalidAnnotation {
    /// Which.
    pub key: &'static str,
    /// What it says.
    pub value: String,
    /// Why it is refused and what to write.
    pub why: &'static str,
}

/// Reads how a service is shared. Without annotations it is not.
///
/// # Errors
/// When a value is not one of those known, or a name and its older name disagree.
pub fn read(notes: &BTreeMap<String, String>) -> Result<Sharing, InvalidAnnotation> {
    let global = truth(notes, GLOBAL, GLOBAL_ALIAS)?.unwrap_or(false);
    let shared = truth(notes, SHARED, SHARED_ALIAS)?;
    let affinity = match value(notes, AFFINITY, AFFINITY_ALIAS)? {
        Some((key, text)) => text.parse().map_err(|_| InvalidAnnotation {
            key,
            value: text.to_owned(),
            why: "is not local, remote or none",
        })?,
        None => Affinity::None,
    };
    Ok(Sharing { global, shared: global && shared.unwrap_or(true), affinity })
}

/// The annotations that say this; `None` = to be removed. Older names are removed, so that they cannot disagree.
pub fn write(sharing: Sharing) -> [(&'static str, Option<&'static str>); 6] {
    let affinity = match sharing.affinity {
        Affinity::None => None,
        Affinity::Local | Affinity::Remote => Some(sharing.affinity.as_str()),
    };
    [
        (GLOBAL, sharing.global.then_some("true")),
        (SHARED, (sharing.global && !sharing.shared).then_some("false")),
        (AFFINITY, affinity),
        (GLOBAL_ALIAS, None),
        (SHARED_ALIAS, None),
        (AFFINITY_ALIAS, None),
    ]
}

fn value<'a>(
    notes: &'a BTreeMap<String, String>,
    key: &'static str,
    alias: &'static str,
) -> Result<Option<(&'static str, &'a str)>, InvalidAnnotation> {
    match (notes.get(key), notes.get(alias)) {
        (Some(new), Some(old)) if !new.eq_ignore_ascii_case(old) => Err(InvalidAnnotation {
            key: alias,
            value: old.clone(),
            why: "disagrees with the annotation's newer name; remove the older one",
        }),
        (Some(text), _) => Ok(Some((key, text))),
        (None, Some(text)) => Ok(Some((alias, text))),
        (None, None) => Ok(None),
    }
}

fn truth(
    notes: &BTreeMap<String, String>,
    key: &'static str,
    alias: &'static str,
) -> Result<Option<bool>, InvalidAnnotation> {
    match value(notes, key, alias)? {
        Some((_, text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some((_, text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some((key, text)) => {
            Err(InvalidAnnotation { key, value: text.to_owned(), why: "is neither \"true\" nor \"false\"" })
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn global_shares_unless_told_otherwise() {
        assert_eq!(read(&notes(&[])).unwrap(), Sharing::default());
        let global = read(&notes(&[(GLOBAL, "True")])).unwrap();
        assert_eq!(global, Sharing { global: true, shared: true, affinity: Affinity::None });
        assert!(!read(&notes(&[(GLOBAL, "true"), (SHARED, "false")])).unwrap().shared);
    }

    #[test]
    fn shared_without_global_is_not_shared() {
        assert_eq!(read(&notes(&[(SHARED, "true")])).unwrap(), Sharing::default());
    }

    #[test]
    fn older_names_work_and_must_not_disagree() {
        let old = notes(&[(GLOBAL_ALIAS, "true"), (AFFINITY_ALIAS, "local")]);
        assert_eq!(read(&old).unwrap(), Sharing { global: true, shared: true, affinity: Affinity::Local });
        assert_eq!(read(&notes(&[(GLOBAL, "true"), (GLOBAL_ALIAS, "false")])).unwrap_err().key, GLOBAL_ALIAS);
    }

    #[test]
    fn bad_values_are_refused() {
        assert_eq!(read(&notes(&[(GLOBAL, "yes")])).unwrap_err().key, GLOBAL);
        assert_eq!(read(&notes(&[(AFFINITY, "near")])).unwrap_err().key, AFFINITY);
    }

    #[test]
    fn what_is_written_reads_back() {
        for global in [true, false] {
            for shared in [true, false] {
                for affinity in [Affinity::None, Affinity::Local, Affinity::Remote] {
                    let sharing = Sharing { global, shared: global && shared, affinity };
                    let mut map = notes(&[(GLOBAL_ALIAS, "true"), (AFFINITY, "remote")]);
                    for (key, value) in write(sharing) {
                        match value {
                            Some(value) => map.insert(key.to_owned(), value.to_owned()),
                            None => map.remove(key),
                        };
                    }
                    assert_eq!(read(&map).unwrap(), sharing);
                }
            }
        }
    }
}
