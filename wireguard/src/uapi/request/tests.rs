//! Tests of `request`.

use super::*;
use proptest::prelude::*;

fn hex(n: u8) -> String {
    hex::encode([n; 32])
}

fn key(n: u8) -> PublicKey {
    PublicKey::new([n; 32])
}

fn after(model: &Model, lines: &str) -> Model {
    edit(model, lines).unwrap().model
}

fn net(text: &str) -> AllowedIp {
    text.parse().unwrap()
}

#[test]
fn one_message_configures_everything() {
    let text = format!(
        "private_key={}\nlisten_port=51871\nfwmark=0x10\nreplace_peers=true\npublic_key={}\npreshared_key={}\n\
         endpoint=[2001:db8::1]:51871\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\n\
         allowed_ip=10.0.0.0/8\nallowed_ip=+fd00::/64\nprotocol_version=1\n",
        hex(9),
        hex(1),
        hex(2)
    );
    let edit = edit(&Model::default(), &text).unwrap();
    assert_eq!((edit.model.listen_port, edit.model.fwmark), (51871, 16));
    let peer = &edit.model.peers()[&key(1)];
    assert_eq!(peer.persistent_keepalive, 25);
    assert_eq!(peer.allowed_ips, [net("10.0.0.0/8"), net("fd00::/64")].into());
    assert!(peer.preshared_key.is_some());
    assert_eq!(edit.endpoints.keys().collect::<Vec<_>>(), [&key(1)]);
    assert_eq!(edit.keepalives, [key(1)].into());
}

#[test]
fn prefix_moves_to_the_peer_that_names_it_last() {
    let model = after(&Model::default(), &format!("public_key={}\nallowed_ip=10.0.0.0/8\n", hex(1)));
    let model = after(&model, &format!("public_key={}\nallowed_ip=10.0.0.0/8\n", hex(2)));
    assert_eq!(model.owners()[&net("10.0.0.0/8")], key(2));
    assert!(model.peers()[&key(1)].allowed_ips.is_empty());
    let model = after(&model, &format!("public_key={}\nallowed_ip=-10.0.0.0/8\n", hex(1)));
    assert_eq!(model.owners()[&net("10.0.0.0/8")], key(2), "only the owner gives it up");
    let model = after(&model, &format!("public_key={}\nallowed_ip=-10.0.0.0/8\n", hex(2)));
    assert!(model.owners().is_empty());
}

#[test]
fn update_only_creates_nobody() {
    let text = format!("public_key={}\nupdate_only=true\nallowed_ip=10.0.0.0/8\n", hex(1));
    assert!(after(&Model::default(), &text).peers().is_empty());
    let model = after(&Model::default(), &format!("public_key={}\n", hex(1)));
    assert_eq!(after(&model, &text).peers()[&key(1)].allowed_ips.len(), 1);
}

#[test]
fn remove_and_replace_take_the_prefixes_along() {
    let both = format!("public_key={}\nallowed_ip=10.0.0.0/8\npublic_key={}\nallowed_ip=10.1.0.0/16\n", hex(1), hex(2));
    let model = after(&Model::default(), &both);
    let removed = after(&model, &format!("public_key={}\nremove=true\nallowed_ip=10.2.0.0/16\n", hex(1)));
    assert_eq!(removed.owners().len(), 1);
    let replaced = after(&model, &format!("replace_peers=true\npublic_key={}\n", hex(3)));
    assert_eq!((replaced.peers().len(), replaced.owners().len()), (1, 0));
    let replaced = after(&model, &format!("public_key={}\nreplace_allowed_ips=true\nallowed_ip=10.9.0.0/16\n", hex(2)));
    assert_eq!(replaced.peers()[&key(2)].allowed_ips, [net("10.9.0.0/16")].into());
}

#[test]
fn own_key_is_never_a_peer() {
    let own = crate::key::PrivateKey::new([9; 32]).public_key().to_hex();
    let model = after(&Model::default(), &format!("private_key={}\npublic_key={own}\nallowed_ip=10.0.0.0/8\n", hex(9)));
    assert!(model.peers().is_empty() && model.owners().is_empty());
    let model = after(&Model::default(), &format!("public_key={own}\nallowed_ip=10.0.0.0/8\n"));
    let model = after(&model, &format!("private_key={}\n", hex(9)));
    assert!(model.peers().is_empty() && model.owners().is_empty());
}

#[test]
fn a_wrong_line_is_refused_by_its_number() {
    let peer = format!("public_key={}\n", hex(1));
    for (lines, expected) in [
        ("listen_port=65536\n".to_owned(), RequestError::Value { line: 1 }),
        ("listen_port=+1\n".to_owned(), RequestError::Value { line: 1 }),
        ("listen_port\n".to_owned(), RequestError::Key { line: 1 }),
        ("endpoint=1.2.3.4:5\n".to_owned(), RequestError::Key { line: 1 }),
        ("private_key=abc\n".to_owned(), RequestError::Value { line: 1 }),
        (format!("{peer}listen_port=1\n"), RequestError::Key { line: 2 }),
        (format!("{peer}endpoint=host:1\n"), RequestError::Value { line: 2 }),
        (format!("{peer}allowed_ip=10.0.0.0/33\n"), RequestError::Value { line: 2 }),
        (format!("{peer}allowed_ip=10.0.0.0\n"), RequestError::Value { line: 2 }),
        (format!("{peer}remove=false\n"), RequestError::Value { line: 2 }),
        (format!("{peer}protocol_version=2\n"), RequestError::Value { line: 2 }),
        (format!("{peer}persistent_keepalive_interval=70000\n"), RequestError::Value { line: 2 }),
    ] {
        assert_eq!(edit(&Model::default(), &lines), Err(expected), "{lines}");
        assert_eq!(expected.errno(), libc::EINVAL);
    }
    assert_eq!(Request::parse("got=1\n"), Err(RequestError::Operation));
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("true".to_owned()),
        Just(hex(1)),
        Just(hex(2)),
        Just("10.0.0.0/8".to_owned()),
        Just("-10.0.0.0/8".to_owned()),
        Just("+fd00::/64".to_owned()),
        Just("192.0.2.1:9".to_owned()),
        (0u32..100_000).prop_map(|n| n.to_string()),
        ".{0,40}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("private_key"),
        Just("listen_port"),
        Just("fwmark"),
        Just("replace_peers"),
        Just("public_key"),
        Just("remove"),
        Just("update_only"),
        Just("preshared_key"),
        Just("endpoint"),
        Just("persistent_keepalive_interval"),
        Just("replace_allowed_ips"),
        Just("allowed_ip"),
        Just("nonsense"),
    ];
    (name, value()).prop_map(|(name, value)| format!("{name}={value}\n"))
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,200}", junk in ".*") {
        let _ = Request::parse(&text);
        let _ = edit(&Model::default(), &text);
        let _ = edit(&Model::default(), &junk);
    }

    #[test]
    fn every_prefix_keeps_one_owner(messages in proptest::collection::vec(proptest::collection::vec(line(), 0..12), 0..6)) {
        let mut model = Model::default();
        for lines in messages {
            if let Ok(edit) = edit(&model, &lines.concat()) {
                model = edit.model;
            }
            let from_peers: Vec<_> = model.peers().values().flat_map(|p| p.allowed_ips.iter().map(|a| (*a, p.public_key))).collect();
            prop_assert_eq!(from_peers.len(), model.owners().len());
            for (prefix, key) in from_peers {
                prop_assert_eq!(model.owners().get(&prefix), Some(&key));
            }
        }
    }
}
