//! Tests of `authority`.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn authority(directory: &Path) -> Authority {
    Authority::open_or_create(directory, &cluster("eu"), SystemTime::now()).unwrap()
}

fn request(role: Role) -> LeafRequest {
    LeafRequest { role, addresses: vec!["10.9.8.7".parse().unwrap()], validity: Validity::day(SystemTime::now()) }
}

#[test]
fn an_authority_is_made_once_and_kept_private() {
    let directory = tempfile::tempdir().unwrap();
    let first = authority(&directory.path().join("pki"));
    let second = authority(&directory.path().join("pki"));
    assert_eq!(first.pin(), second.pin());
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    for file in [CERTIFICATE_FILE, KEY_FILE] {
        let mode = std::fs::metadata(directory.path().join("pki").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_damaged_authority_is_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let other = tempfile::tempdir().unwrap();
    let foreign = authority(other.path());
    std::fs::write(directory.path().join(CERTIFICATE_FILE), foreign.certificate_pem()).unwrap();
    let error = Authority::open_or_create(directory.path(), &cluster("eu"), SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("do not belong together"), "{error}");
    std::fs::remove_file(directory.path().join(CERTIFICATE_FILE)).unwrap();
    let error = Authority::open_or_create(directory.path(), &cluster("eu"), SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("certificate is missing"), "{error}");
}

#[test]
fn an_authority_of_another_cluster_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path());
    let error = Authority::open_or_create(directory.path(), &cluster("us"), SystemTime::now()).unwrap_err();
    assert!(matches!(&error, AuthorityError::OtherCluster { found, .. } if found == "eu"), "{error}");
}

#[test]
fn a_leaf_names_its_role_and_no_more_than_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let leaf = authority.issue(&request(Role::Api), &KeyMaterial::Generate).unwrap();
    assert_eq!(PeerName::of_certificate(&leaf.chain[0]).unwrap().to_string(), "spiffe://eu/api");
    let (_, parsed) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    assert_eq!(common_name(&parsed), Some("remote-eu"));
    assert!(!parsed.is_ca());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let slack = i64::try_from(now).unwrap() - parsed.validity().not_before.timestamp();
    assert!((299..400).contains(&slack), "{slack}");
    assert_eq!(parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp(), 24 * 3600 + 300);
    let again = Leaf::from_pem(&leaf.chain_pem, leaf.key_pem().unwrap()).unwrap();
    assert_eq!((again.chain, again.not_after), (leaf.chain, leaf.not_after));
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let key = KeyPair::generate().unwrap();
    let mut wish = CertificateParams::default();
    wish.subject_alt_names = vec![SanType::URI("spiffe://eu/api".try_into().unwrap())];
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = wish.serialize_request(&key).unwrap();
    let node = Role::Node("n1".parse().unwrap());
    let leaf = authority.issue(&request(node.clone()), &KeyMaterial::Request(csr.der())).unwrap();
    assert_eq!(PeerName::of_certificate(&leaf.chain[0]).unwrap().role, node);
    let (_, parsed) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
    assert!(leaf.key_pem().is_none());
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(directory.path());
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    // The last bytes are the signature's; any change breaks the proof.
    let mut forged = csr.der().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(authority.issue(&request(Role::Api), &KeyMaterial::Request(&forged)).is_err());
    for length in 0..csr.der().len() {
        assert!(authority.issue(&request(Role::Api), &KeyMaterial::Request(&csr.der()[..length])).is_err());
    }
}
