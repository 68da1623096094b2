//! `matchLabels` and `matchExpressions`, in Kubernetes' and in Cilium's spelling of keys.

use std::collections::BTreeMap;

use super::error::Problem;
use super::field::{Field, Refusal};
use super::metadata::check_label;
use crate::labels::well_known::{
    CLUSTER, NAMESPACE, NAMESPACE_LABELS_PREFIX, RESERVED_KEY_PREFIXES, SOURCE_ANY, SOURCE_CIDR, SOURCE_K8S,
    SOURCE_RESERVED,
};
use crate::labels::{KeySyntax, LabelSelector, MatchExpression, RawLabelSelector, user};
use crate::names::{ClusterName, Namespace};

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
    Ok(LabelSelector::new(requirements))
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

fn compile(
    raw: &RawLabelSelector,
    at: &Field<'_>,
    syntax: KeySyntax,
) -> Result<Vec<crate::labels::Requirement>, Refusal> {
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
            if source == SOURCE_RESERVED && crate::ids::Identity::from_reserved_name(bare).is_none() {
                return Err(at.invalid(key, "is no reserved label; write reserved:host, reserved:world, …"));
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
    if source == SOURCE_RESERVED && text.is_empty() {
        return Ok(());
    }
    check_label("key", value)
}
