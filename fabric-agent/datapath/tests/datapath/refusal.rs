//! A kernel that lacks something is refused with the name of what is missing, before anything is changed.

use std::{env, process::Command};

use fabric_agent_datapath::{Datapath, OpenError, Params, Sizes, probe};

use crate::lab::{capable, unique};

const TASK: &str = "FABRIC_DATAPATH_TEST_PIN_DIR";

/// The other process's part; does nothing in an ordinary run.
#[test]
fn opener() {
    let Ok(pin_dir) = env::var(TASK) else { return };
    let params = Params { pin_dir: pin_dir.into(), cgroup: None, sizes: Sizes::small() };
    match Datapath::open(&params) {
        Ok(_) => println!("\nOPENED"),
        Err(OpenError::Missing(missing)) => println!("\nMISSING {missing}"),
        Err(other) => println!("\nOTHER {other}"),
    }
}

#[test]
fn a_missing_feature_is_named_and_nothing_is_made() {
    if !capable() {
        return;
    }
    let pin_dir = std::path::Path::new("/sys/fs/bpf").join(unique("refusal"));
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "refusal::opener", "--nocapture"])
        .env(TASK, &pin_dir)
        .env(probe::SIMULATE, "tcx,cgroup2")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("MISSING the kernel has no TCX hooks: Linux 6.6"), "{text}");
    assert!(text.contains("no cgroup v2 is mounted"), "{text}");
    assert!(!pin_dir.exists());
}
