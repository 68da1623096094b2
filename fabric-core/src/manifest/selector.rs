//! `matchLabels` and `matchExpressions`, in Kubernetes' and in Cilium's spelling of keys.

use std::collections::BTreeMap;

use super::error::Problem;
use super::field::{Field, Refusal};
use super::metadata::check_label;
use crate::labels::well_known::{
    CLUSTER, NAMESPACE, NAMESPACE_LABELS_PREFIX, RESERVED_KEY_PREFIXES, SOURCE_ANY, SOURCE_CIDR, SOURCE_K8S,
    SOURCE_RESERVED,
};
use crate::labels::{KeySyntax, LabelSelector, MatchExpression, MatchOperator, RawLabelSelector, Requirement, user};
use crate::names::{ClusterName, Namespace};

/// Reserved labels that selectors can name.
const RESERVED_NAMES: [&str; 8] =
    ["host", "world", "unmanaged", "health", "init", "remote-node", "kube-apiserver", "ingress"];

/// Reads a selector; `{}` selects everything that its place allows.
pub(super) fn read(field: &Field<'_>, syntax: KeySyntax) -> Result<LabelSelector, Refusal> {
    let mut map = field.map()?;
    let mut requirements = Vec::new();
    if let Some(labels) = map.optional("matchLabels")? {
        for (key, value) in labels.map()?.fields() {
            check_key(key, &value, syntax)?;
            check_value(key, &value, syntax)?;
            let one = BTreeMap::from([(key.to_owned(), value.text()?.to_owned())]);
            let raw = RawLabelSelector { match_labels: Some(one), match_expressions: None };
            requirements.extend(compile(&raw, &value, syntax)?);
        }
    }
    if let Some(expressions) = map.optional("matchExpressions")? {
        for expression in expressions.list()? {
            let raw = read_expression(&expression, syntax)?;
            let raw = RawLabelSelector { match_labels: None, match_expressions: Some(vec![raw]) };
            requirements.extend(compile(&raw, &expression, syntax)?);
        }
    }
    map.finish()?;
    let selector = LabelSelector::new(requirements);
    refuse_odd_reserved(&selector, field)?;
    Ok(selector)
}

/// Reads the selector of the endpoints that a Cilium policy is for.
///
/// `namespace` is the policy's own; a policy for all namespaces has none.
pub(super) fn read_subject(field: &Field<'_>, namespace: Option<&Namespace>) -> Result<LabelSelector, Refusal> {
    let selector = read(field, KeySyntax::Cilium)?;
    for requirement in selector.requirements() {
        let source = requirement.key.source.as_deref();
        if source == Some(SOURCE_RESERVED) {
            let reason = "policies are for endpoints with labels of their own; reserved identities are peers only";
            return Err(field.refuse(Problem::Unsupported(reason)));
        }
        let (Some(own), true) = (namespace, source.is_none_or(|source| source == SOURCE_K8S)) else {
            continue;
        };
        let key = &*requirement.key.key;
        let only_own =
            matches!(&requirement.operator, MatchOperator::In(values) if *values == [Box::from(own.as_str())]);
        if key.starts_with(NAMESPACE_LABELS_PREFIX) || (key == NAMESPACE && !only_own) {
            let reason = "a CiliumNetworkPolicy is for endpoints of its own namespace; \
                          use a CiliumClusterwideNetworkPolicy to select others";
            return Err(field.refuse(Problem::Unsupported(reason)));
        }
    }
    Ok(selector)
}

/// Reserved identities are named, one by one. A condition such as "not the host" would match the world as well.
fn refuse_odd_reserved(selector: &LabelSelector, field: &Field<'_>) -> Result<(), Refusal> {
    let is_reserved = |one: &&Requirement| one.key.source.as_deref() == Some(SOURCE_RESERVED);
    let named = selector.requirements().iter().filter(is_reserved).count();
    if named == 0 {
        return Ok(());
    }
    if named < selector.requirements().len() {
        let hint = "no identity has both; write two selectors";
        return Err(field.refuse(Problem::Conflict { other: "labels of endpoints", hint }));
    }
    let negative = |one: &Requirement| matches!(one.operator, MatchOperator::NotIn(_) | MatchOperator::DoesNotExist);
    if selector.requirements().iter().any(negative) {
        let reason = "reserved labels cannot be excluded, that would select the world as well; name those you mean";
        return Err(field.refuse(Problem::Unsupported(reason)));
    }
    Ok(())
}

fn read_expression(field: &Field<'_>, syntax: KeySyntax) -> Result<MatchExpression, Refusal> {
    let mut map = field.map()?;
    let key_field = map.required("key", "name the label")?;
    let key = key_field.text()?.to_owned();
    check_key(&key, &key_field, syntax)?;
    let operator = map.required("operator", "write In, NotIn, Exists or DoesNotExist")?.text()?.to_owned();
    let read_values = |field: Field<'_>| {
        field.each(|value| {
            check_value(&key, value, syntax)?;
            value.text().map(str::to_owned)
        })
    };
    let values = map.optional("values")?.map(read_values).transpose()?;
    map.finish()?;
    Ok(MatchExpression { key, operator, values })
}

fn compile(raw: &RawLabelSelector, at: &Field<'_>, syntax: KeySyntax) -> Result<Vec<Requirement>, Refusal> {
    let selector = raw.compile(syntax).map_err(|error| at.refuse(Problem::Selector(error)))?;
    Ok(selector.requirements().to_vec())
}

fn check_key(key: &str, at: &Field<'_>, syntax: KeySyntax) -> Result<(), Refusal> {
    let bad_key = || Err(at.invalid(key, "is no label key; write app, example.com/app, k8s:app or any:app"));
    match syntax {
        KeySyntax::Kubernetes if RESERVED_KEY_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) => {
            Err(at.refuse(Problem::Unsupported(
                "a NetworkPolicy selects by the labels of pods and namespaces in its own cluster alone; \
                 use namespaceSelector, or a CiliumNetworkPolicy to name clusters",
            )))
        }
        KeySyntax::Kubernetes if user::is_key(key) => Ok(()),
        KeySyntax::Kubernetes => Err(at.invalid(
            key,
            "is no label key; use letters, digits, '-', '_' and '.', at most 63, after an optional prefix and '/'",
        )),
        KeySyntax::Cilium => {
            let (source, bare) = key.split_once(':').unwrap_or((SOURCE_ANY, key));
            if source == SOURCE_CIDR || source == "fqdn" {
                let reason = "addresses are not selected by labels; use fromCIDRSet or toCIDRSet";
                return Err(at.refuse(Problem::Unsupported(reason)));
            }
            if source == SOURCE_RESERVED && !RESERVED_NAMES.contains(&bare) {
                let known = RESERVED_NAMES.join(", ");
                return Err(at.invalid(key, format!("is no reserved label that can be named; known are {known}")));
            }
            let bare = bare.strip_prefix(NAMESPACE_LABELS_PREFIX).unwrap_or(bare);
            if source.is_empty() || !user::is_key(bare) { bad_key() } else { Ok(()) }
        }
    }
}

fn check_value(key: &str, value: &Field<'_>, syntax: KeySyntax) -> Result<(), Refusal> {
    let text = value.text()?;
    let (source, bare) = match syntax {
        KeySyntax::Kubernetes => (SOURCE_K8S, key),
        KeySyntax::Cilium => key.split_once(':').unwrap_or((SOURCE_ANY, key)),
    };
    let by_system = source == SOURCE_K8S || source == SOURCE_ANY;
    if by_system && bare == CLUSTER {
        return value.parse::<ClusterName>("name a cluster of the mesh").map(drop);
    }
    if by_system && bare == NAMESPACE {
        return value.parse::<Namespace>("name a namespace").map(drop);
    }
    if source == SOURCE_RESERVED {
        let why = "is more than a reserved label can have; write \"\"";
        return if text.is_empty() { Ok(()) } else { Err(value.invalid(text, why)) };
    }
    check_label("key", value)
}
