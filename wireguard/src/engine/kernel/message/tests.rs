//! Tests of `message`.

use super::*;
use std::collections::BTreeSet;

fn interface() -> InterfaceName {
    "wg0".parse().unwrap()
}

fn payload(message: Message) -> Vec<u8> {
    message.bytes()[16..].to_vec()
}

#[test]
fn one_peer_has_the_bytes_of_the_kernels_header() {
    let mut patch = PeerPatch::new(PublicKey::new([0xaa; 32]), PatchMode::UpdateOnly);
    patch.endpoint = Some("192.0.2.1:51871".parse().unwrap());
    patch.persistent_keepalive = Some(25);
    patch.add_allowed_ips = ["10.0.0.0/8".parse().unwrap()].into();
    patch.remove_allowed_ips = ["10.1.0.0/16".parse().unwrap()].into();
    let [message] = <[Message; 1]>::try_from(changes(0x1c, &interface(), &[PeerChange::Patch(patch)])).ok().unwrap();
    let bytes = message.bytes();

    let mut expected = vec![1, 1, 0, 0]; // WG_CMD_SET_DEVICE, version 1
    expected.extend([8, 0, 2, 0, b'w', b'g', b'0', 0]);
    expected.extend([168, 0, 8, 0x80, 164, 0, 0, 0x80]); // peers { peer {
    expected.extend([36, 0, 1, 0]);
    expected.extend([0xaa; 32]);
    expected.extend([8, 0, 3, 0, 4, 0, 0, 0]); // update only
    expected.extend([20, 0, 4, 0, 2, 0, 0xca, 0x9f, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([6, 0, 5, 0, 25, 0, 0, 0]);
    expected.extend([76, 0, 9, 0x80]); // prefixes {
    expected.extend([28, 0, 0, 0x80, 6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 0, 5, 0, 3, 0, 8, 0, 0, 0]);
    expected.extend([36, 0, 0, 0x80, 6, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 1, 0, 0, 5, 0, 3, 0, 16, 0, 0, 0]);
    expected.extend([8, 0, 4, 0, 1, 0, 0, 0]); // remove this one
    // 8 more for nests around: computed, not copied.
    let peer_len = u16::try_from(expected.len() - 16).unwrap();
    expected[16..18].copy_from_slice(&peer_len.to_ne_bytes());
    expected[12..14].copy_from_slice(&(peer_len + 4).to_ne_bytes());
    let list_at = expected.len() - 68;
    expected[list_at..list_at + 2].copy_from_slice(&68u16.to_ne_bytes());

    assert_eq!(bytes[4..6], 0x1cu16.to_ne_bytes());
    assert_eq!(bytes[6..8], 5u16.to_ne_bytes(), "request with acknowledgement, never replace");
    assert_eq!(bytes[16..], expected);
    assert_eq!(bytes[..4], u32::try_from(bytes.len()).unwrap().to_ne_bytes());
}

#[test]
fn settings_carry_what_is_given_alone() {
    let settings = DeviceSettings { listen_port: Some(51871), ..DeviceSettings::default() };
    let bytes = payload(set_device(1, &interface(), &settings, None));
    assert_eq!(bytes[4..], [8, 0, 2, 0, b'w', b'g', b'0', 0, 6, 0, 6, 0, 0x9f, 0xca, 0, 0]);
}

#[test]
fn many_prefixes_are_split_and_none_is_lost() {
    let prefixes: BTreeSet<AllowedIp> =
        (0..5000u32).map(|n| AllowedIp::host(IpAddr::V6(Ipv6Addr::from(u128::from(n))))).collect();
    let mut patch = PeerPatch::new(PublicKey::new([1; 32]), PatchMode::Upsert);
    patch.add_allowed_ips.clone_from(&prefixes);
    let messages = changes(1, &interface(), &[PeerChange::Patch(patch)]);
    assert!(messages.len() > 1);
    let mut reader = StatusReader::default();
    for message in messages {
        let bytes = payload(message);
        assert!(bytes.len() < 64 << 10);
        reader.take(&bytes);
    }
    let status = reader.finish();
    assert_eq!(status.peers[&PublicKey::new([1; 32])].allowed_ips, prefixes);
}

#[test]
fn what_is_written_is_read_again() {
    let mut patch = PeerPatch::new(PublicKey::new([7; 32]), PatchMode::Upsert);
    patch.endpoint = Some("[2001:db8::1%3]:51871".parse().unwrap());
    patch.preshared_key = Some(PresharedKey::new([9; 32]));
    patch.persistent_keepalive = Some(7);
    patch.add_allowed_ips = ["fd00::/64".parse().unwrap(), "0.0.0.0/0".parse().unwrap()].into();
    let mut reader = StatusReader::default();
    for message in changes(1, &interface(), &[PeerChange::Patch(patch.clone())]) {
        reader.take(&payload(message));
    }
    let status = reader.finish();
    let peer = &status.peers[&patch.public_key];
    assert_eq!(peer.endpoint, patch.endpoint);
    assert_eq!(Some(peer.preshared_key.clone()), patch.preshared_key);
    assert_eq!(peer.persistent_keepalive, 7);
    assert_eq!(peer.allowed_ips, patch.add_allowed_ips);
}

#[test]
fn dump_of_a_device_is_read() {
    let mut message = Message::new(1, 0).raw(&[0, 1, 0, 0]);
    message.attribute(DEVICE_PUBLIC_KEY, &[3; 32]);
    message.attribute(DEVICE_LISTEN_PORT, &51871u16.to_ne_bytes());
    message.attribute(DEVICE_FWMARK, &9u32.to_ne_bytes());
    let peers = message.open(DEVICE_PEERS | NLA_F_NESTED);
    let peer = message.open(NLA_F_NESTED);
    message.attribute(PEER_PUBLIC_KEY, &[4; 32]);
    message.attribute(PEER_PRESHARED_KEY, &[0; 32]);
    message.attribute(PEER_RX_BYTES, &1372u64.to_ne_bytes());
    message.attribute(PEER_TX_BYTES, &1428u64.to_ne_bytes());
    let mut time = 1_700_000_000i64.to_ne_bytes().to_vec();
    time.extend(5i64.to_ne_bytes());
    message.attribute(PEER_LAST_HANDSHAKE, &time);
    message.close(peer);
    message.close(peers);

    let mut reader = StatusReader::default();
    reader.take(&payload(message));
    let status = reader.finish();
    assert_eq!((status.public_key, status.listen_port, status.fwmark), (Some(PublicKey::new([3; 32])), 51871, 9));
    let peer = &status.peers[&PublicKey::new([4; 32])];
    assert_eq!((peer.rx_bytes, peer.tx_bytes, &peer.preshared_key), (1372, 1428, &None));
    assert_eq!(peer.last_handshake, Some(UNIX_EPOCH + Duration::new(1_700_000_000, 5)));
}

proptest::proptest! {
    #[test]
    fn random_answers_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let mut reader = StatusReader::default();
        reader.take(&bytes);
        let _ = family_id(&bytes);
        let _ = parse_socket_address(&bytes);
    }
}
