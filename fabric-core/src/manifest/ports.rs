//! Ports, protocols and address blocks, as policies and services write them.

use super::error::Problem;
use super::field::{Field, Map, Refusal};
use super::tree::Value;
use crate::policy::{CidrBlock, PortMatch, Protocol};
use crate::prefix::Prefix;

const PORT_RANGE: &str = "is no port; use 1 to 65535";
const NAMED: &str = "named ports are not resolved in policies; write the number";

/// A port number that is written as a number.
pub(super) fn number(field: &Field<'_>) -> Result<u16, Refusal> {
    let value = field.int()?;
    u16::try_from(value)
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| field.refuse(Problem::Invalid { value: value.to_string(), why: PORT_RANGE.to_owned() }))
}

/// `endPort`, which must not lie below `first`.
fn end_port(field: &Field<'_>, first: u16) -> Result<u16, Refusal> {
    let last = number(field)?;
    if last < first {
        return Err(field.refuse(Problem::Invalid {
            value: last.to_string(),
            why: format!("lies below the port {first}; swap them"),
        }));
    }
    Ok(last)
}

/// `ports` of a NetworkPolicy rule.
pub(super) fn of_network_policy(field: &Field<'_>) -> Result<Vec<PortMatch>, Refusal> {
    field.each(|item| {
        let mut map = item.map()?;
        let protocol = match map.optional("protocol")? {
            Some(field) => field.one_of(&[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)])?,
            None => Protocol::Tcp,
        };
        let port = map.optional("port")?;
        let end = map.optional("endPort")?;
        if port.is_none() && end.is_some() {
            return Err(map.missing("port", "endPort needs the first port too"));
        }
        map.finish()?;
        let Some(port) = port else {
            return Ok(PortMatch::all_of(protocol));
        };
        if let Value::Text(name) = port.value() {
            return Err(named_or_quoted(&port, name));
        }
        let first = number(&port)?;
        let last = end.map_or(Ok(first), |end| end_port(&end, first))?;
        Ok(PortMatch { protocol: Some(protocol), first, last })
    })
}

fn named_or_quoted(field: &Field<'_>, name: &str) -> Refusal {
    if name.parse::<u16>().is_ok() {
        return field.invalid(name, "would be the name of a port; write the number without quotes");
    }
    field.refuse(Problem::Unsupported(NAMED))
}

/// `toPorts` of a CiliumNetworkPolicy rule; all lists joined.
pub(super) fn of_cilium(field: &Field<'_>) -> Result<Vec<PortMatch>, Refusal> {
    let mut matches = Vec::new();
    for rule in field.list()? {
        let mut map = rule.map()?;
        let ports = map.required("ports", "list at least one port")?;
        if let Some(rules) = map.optional("rules")? {
            refuse_layer_7(&rules)?;
        }
        let proxies = "traffic is not terminated or redirected; policy ends at ports";
        map.unsupported(&[
            ("listener", proxies),
            ("originatingTLS", proxies),
            ("serverNames", proxies),
            ("terminatingTLS", proxies),
        ])?;
        map.finish()?;
        let list = ports.each(cilium_port)?;
        if list.is_empty() {
            return Err(ports.refuse(Problem::Missing { hint: "list at least one port, or leave toPorts out" }));
        }
        matches.extend(list);
    }
    Ok(matches)
}

/// Names the protocol of layer 7 that was asked for, where there is one.
fn refuse_layer_7(rules: &Field<'_>) -> Result<(), Refusal> {
    const REASON: &str = "L7 rules are not enforced here, and without them the port would be open to more than is \
                          written; allow the port by itself, or leave it out";
    match rules.map()?.fields().next() {
        Some((_, first)) => Err(first.refuse(Problem::Unsupported(REASON))),
        None => Ok(()),
    }
}

fn cilium_port(field: &Field<'_>) -> Result<PortMatch, Refusal> {
    let mut map = field.map()?;
    let port = map.required("port", "write the port's number in quotes; \"0\" means all")?;
    let protocol = match map.optional("protocol")? {
        Some(field) => match field.text()?.to_ascii_uppercase().as_str() {
            "ANY" => None,
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            "ICMP" | "ICMPV6" => {
                return Err(field.refuse(Problem::Unsupported("ICMP has no ports; use icmps instead of toPorts")));
            }
            other => return Err(field.invalid(other, "is not one of ANY, TCP, UDP, SCTP")),
        },
        None => None,
    };
    let end = map.optional("endPort")?;
    map.finish()?;
    let first = quoted_port(&port)?;
    match (first, end) {
        (0, None) => Ok(PortMatch { protocol, ..PortMatch::ALL }),
        (0, Some(end)) => Err(end.refuse(Problem::Conflict { other: "port \"0\"", hint: "leave endPort out" })),
        (first, end) => {
            let last = end.map_or(Ok(first), |end| end_port(&end, first))?;
            Ok(PortMatch { protocol, first, last })
        }
    }
}

fn quoted_port(field: &Field<'_>) -> Result<u16, Refusal> {
    let text = field.text()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| field.invalid(text, PORT_RANGE));
    }
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(field.refuse(Problem::Unsupported(NAMED)));
    }
    Err(field.invalid(text, PORT_RANGE))
}

/// `icmps` of a CiliumNetworkPolicy rule: types by number.
pub(super) fn of_icmps(field: &Field<'_>) -> Result<Vec<PortMatch>, Refusal> {
    let mut matches = Vec::new();
    for rule in field.list()? {
        let mut map = rule.map()?;
        let fields = map.required("fields", "list at least one ICMP type")?;
        map.finish()?;
        matches.extend(fields.each(icmp_field)?);
    }
    if matches.is_empty() {
        return Err(field.refuse(Problem::Missing { hint: "list at least one ICMP type, or leave icmps out" }));
    }
    Ok(matches)
}

fn icmp_field(field: &Field<'_>) -> Result<PortMatch, Refusal> {
    let mut map = field.map()?;
    let kind = map.required("type", "write the ICMP type's number")?;
    let family = map.optional("family")?;
    map.finish()?;
    let protocol = match family {
        Some(family) => family.one_of(&[("IPv4", Protocol::Icmp), ("IPv6", Protocol::Icmpv6)])?,
        None => Protocol::Icmp,
    };
    if let Value::Text(_) = kind.value() {
        return Err(kind.refuse(Problem::Unsupported("names of ICMP types are not known; write the number")));
    }
    let value = kind.int()?;
    let number = u8::try_from(value).map_err(|_| {
        kind.refuse(Problem::Invalid { value: value.to_string(), why: "is no ICMP type; use 0 to 255".to_owned() })
    })?;
    Ok(PortMatch { protocol: Some(protocol), first: number.into(), last: number.into() })
}

/// `{cidr, except}`, of `ipBlock` and of `fromCIDRSet`.
pub(super) fn cidr_block(mut map: Map<'_>) -> Result<CidrBlock, Refusal> {
    let by_reference = "groups of CIDRs are not kept; write the CIDR";
    map.unsupported(&[("cidrGroupRef", by_reference), ("cidrGroupSelector", by_reference)])?;
    let cidr = prefix(&map.required("cidr", "write an address prefix")?)?;
    let except = match map.optional("except")? {
        Some(list) => list.each(|item| {
            let hole = prefix(item)?;
            if cidr.covers(&hole) && hole != cidr {
                return Ok(hole);
            }
            Err(item.invalid(&hole.to_string(), format!("does not lie inside {cidr}; an exception must")))
        })?,
        None => Vec::new(),
    };
    map.finish()?;
    Ok(CidrBlock { cidr, except })
}

/// A prefix, or one address.
pub(super) fn prefix(field: &Field<'_>) -> Result<Prefix, Refusal> {
    let prefix: Prefix = field.parse("write a prefix without host bits, such as 203.0.113.0/24")?;
    if let std::net::IpAddr::V6(v6) = prefix.address()
        && prefix.length() >= 96
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(field.invalid(&prefix.to_string(), "is an IPv4 address in IPv6 clothes; write it as IPv4"));
    }
    Ok(prefix)
}
