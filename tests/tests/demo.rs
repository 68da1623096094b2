//! `fabric demo --once`, as a program reads it.

use std::process::Command;

use fabric_tests::mesh;
use serde_json::Value;

#[test]
fn every_step_of_the_tour_holds() {
    fabric_tests::require_root();
    let out = Command::new(mesh::executable().unwrap()).args(["demo", "--once", "-o", "json"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() > 15, "{report}");
    for step in steps {
        assert!(step["ok"] == true && step["ms"].is_u64() && step["detail"].is_string(), "{step}");
    }
}
