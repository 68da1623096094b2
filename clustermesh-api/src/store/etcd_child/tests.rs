//! Tests of `etcd_child`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::store::Outcome;

fn config(directory: &Path) -> EtcdChildConfig {
    EtcdChildConfig { lock_timeout: Duration::from_millis(200), ..EtcdChildConfig::new(directory.join("etcd")) }
}

/// Runs a child until the returned token is cancelled.
fn run(child: EtcdChild) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let cancel = CancellationToken::new();
    (cancel.clone(), tokio::spawn(child.run(cancel)))
}

/// An executable that stands in for etcd.
fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("etcd.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn pid(status: &mut watch::Receiver<ChildStatus>, not: u32) -> u32 {
    let running = |status: &ChildStatus| matches!(status, ChildStatus::Running { pid } if *pid != not);
    let status = tokio::time::timeout(Duration::from_secs(30), status.wait_for(running)).await.unwrap().unwrap();
    let ChildStatus::Running { pid } = *status else { unreachable!("waited for it") };
    pid
}

fn alive(pid: u32) -> bool {
    kill_number(pid, None)
}

fn kill_number(pid: u32, signal: Option<Signal>) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), signal).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_writes_survives_a_kill_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let child = EtcdChild::start(config(directory.path())).await.unwrap();
    let (store, mut status) = (child.store(), child.status());
    let first = pid(&mut status, 0).await;
    assert!(matches!(store.create("a", "1").await.unwrap(), Outcome::Done { .. }));
    let cluster_id = store.cluster_id();
    let (cancel, task) = run(child);

    assert!(kill_number(first, Some(Signal::SIGKILL)));
    let second = pid(&mut status, first).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let found = loop {
        match store.get("a").await {
            Ok(found) => break found.unwrap(),
            Err(error) => assert!(error.is_transient() && Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(found.value, "1");
    assert_eq!(store.cluster_id(), cluster_id);

    cancel.cancel();
    task.await.unwrap();
    assert!(!alive(second));
    assert_eq!(*status.borrow(), ChildStatus::Stopped);
    for file in ["lock", "server.key", "authority.key", "etcd.log"] {
        let mode = std::fs::metadata(directory.path().join("etcd").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    // What was written is there at the next start, under the same cluster id.
    let child = EtcdChild::start(config(directory.path())).await.unwrap();
    let store = child.store();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(store.cluster_id(), cluster_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_never_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let child = EtcdChild::start(config(directory.path())).await.unwrap();
    let error = EtcdChild::start(config(directory.path())).await.unwrap_err();
    let holder = std::process::id().to_string();
    assert!(matches!(&error, EtcdChildError::Locked { holder: found, .. } if *found == holder), "{error}");
    drop(child);
    // Dropping kills; the lock goes with the process.
    let patient = EtcdChildConfig { lock_timeout: Duration::from_secs(10), ..config(directory.path()) };
    EtcdChild::start(patient).await.unwrap();
}

#[tokio::test]
async fn a_missing_executable_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = EtcdChildConfig { binary: "no-such-etcd".into(), ..config(directory.path()) };
    let error = EtcdChild::start(config).await.unwrap_err();
    assert!(error.to_string().starts_with("etcd executable no-such-etcd was not found: install etcd"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let binary = script(directory.path(), "echo 'panic: write wal: no space left on device' >&2; exit 1");
    let error = EtcdChild::start(EtcdChildConfig { binary, ..config(directory.path()) }).await.unwrap_err();
    assert!(matches!(error, EtcdChildError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
}

#[tokio::test]
async fn last_words_of_one_that_does_not_start_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let binary = script(directory.path(), "echo '{\"level\":\"fatal\",\"msg\":\"bad data\"}'; exit 3");
    let error = EtcdChild::start(EtcdChildConfig { binary, ..config(directory.path()) }).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exit status 3") && text.contains("bad data"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_changed_for_another() {
    let directory = tempfile::tempdir().unwrap();
    // Says so twice, then is the real one.
    let binary = script(
        directory.path(),
        "n=$(cat \"$0.n\" 2>/dev/null || echo 0); echo $((n+1)) > \"$0.n\"\n\
         if [ $n -lt 2 ]; then echo 'listen tcp 127.0.0.1:1: bind: address already in use' >&2; exit 1; fi\n\
         exec /usr/bin/etcd \"$@\"",
    );
    let binary_path = std::env::var_os("PATH").unwrap();
    let real = find(Path::new("etcd")).unwrap_or_else(|| panic!("etcd not in {binary_path:?}"));
    let text = std::fs::read_to_string(&binary).unwrap().replace("/usr/bin/etcd", real.to_str().unwrap());
    std::fs::write(&binary, format!("{}{}", text.replacen("#!/bin/sh\n", "#!/bin/sh\nPATH=/usr/bin:/bin\n", 1), "\n"))
        .unwrap();
    let child = EtcdChild::start(EtcdChildConfig { binary, ..config(directory.path()) }).await.unwrap();
    assert!(child.store().put("a", "1").await.unwrap() > 0);

    let always = tempfile::tempdir().unwrap();
    let binary = script(always.path(), "echo 'bind: address already in use' >&2; exit 1");
    let error = EtcdChild::start(EtcdChildConfig { binary, ..config(always.path()) }).await.unwrap_err();
    assert!(matches!(error, EtcdChildError::PortTaken { attempts: PORT_ATTEMPTS, .. }), "{error}");
}

#[tokio::test]
async fn one_that_never_answers_is_given_up_and_killed() {
    let directory = tempfile::tempdir().unwrap();
    let binary = script(directory.path(), "echo $$ > \"$0.pid\"; exec /bin/sleep 600");
    let config = EtcdChildConfig {
        binary: binary.clone(),
        start_timeout: Duration::from_millis(300),
        ..config(directory.path())
    };
    let error = EtcdChild::start(config).await.unwrap_err();
    assert!(matches!(error, EtcdChildError::NotReady { .. }), "{error}");
    let pid: u32 = std::fs::read_to_string(format!("{}.pid", binary.display())).unwrap().trim().parse().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive(pid) {
        assert!(Instant::now() < deadline, "still there");
        tokio::task::yield_now().await;
    }
}
