//! Bad input: a clear message, a stable code, the documented exit code, and nothing changed.

use fabric_cli::lab::{Output, run};
use fabric_tests::{Mesh, mesh};

fn refused(out: &Output, exit: i32, code: &str, says: &[&str]) {
    assert_eq!(out.code, exit, "{out:?}");
    assert!(out.stderr.contains(code), "{out:?}");
    for word in says {
        assert!(out.stderr.contains(word), "no {word:?} in {out:?}");
    }
}

fn fabric(args: &[&str]) -> Output {
    run(&mesh::executable().unwrap().display().to_string(), args).unwrap()
}

#[test]
fn documents_are_refused_by_line_and_field_and_change_nothing() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    let apply = |name: &str, text: &str| {
        let file = mesh.demo.file(name, text).unwrap().display().to_string();
        mesh.try_ops(&["apply", "-f", &file, "--context", "eu"]).unwrap()
    };
    refused(&apply("broken.yaml", "apiVersion: v1\nkind: Service\n  metadata: [\n"), 2, "FAB-", &["broken.yaml"]);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n  selector: {app: a}\n  ports: [{port: 80}]\n  colour: blue\n";
    refused(&apply("unknown.yaml", service), 2, "FAB-", &["colour"]);
    let l7 = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a, namespace: shop}\nspec:\n  endpointSelector: {}\n  ingress:\n  - toPorts: [{ports: [{port: \"80\"}], rules: {http: [{}]}}]\n";
    refused(&apply("l7.yaml", l7), 2, "FAB-", &["rules"]);
    // All or none: a good document beside a bad one is not applied.
    let good = service.replace("  colour: blue\n", "");
    refused(&apply("both.yaml", &format!("{good}---\n{l7}")), 2, "FAB-", &["rules"]);
    assert!(mesh.items(&["get", "--context", "eu"]).unwrap().is_empty());
}

#[test]
fn clusters_that_do_not_fit_are_not_connected() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    let links = || mesh.items(&["get", "link", "--context", "eu"]).unwrap();
    let node = mesh.node("us1").unwrap();
    let recreate = |flags: &[&str]| {
        // The same machine, born again with what does not fit.
        let run_dir = node.dir().join("run").display().to_string();
        let state = node.dir().join("state").display().to_string();
        node.fabric(&["leave", "--yes", "--state-dir", &state, "--run-dir", &run_dir]).unwrap().into_result().unwrap();
        let mut up = vec!["up", "--foreground", "--cluster", "us", "--name", "us1"];
        up.extend(flags);
        let place = node.place_flags();
        up.extend(place.iter().map(String::as_str));
        let process = node.start("again", &up).unwrap();
        mesh.demo.wait_ready(node).unwrap();
        process
    };
    let eu: fabric_core::cluster::ClusterSpec = fabric_core::cluster::ClusterSpec::from_name("eu".parse().unwrap());
    let first = eu.prefixes[0].to_string();
    for (flags, code) in [
        (vec!["--id".to_owned(), eu.id.to_string()], "FAB-2101"),
        (vec!["--prefix".to_owned(), first, "--prefix".to_owned(), "fd77::/48".to_owned()], "FAB-2103"),
        (vec!["--routing".to_owned(), "geneve".to_owned()], "FAB-2104"),
        (vec!["--no-encryption".to_owned()], "FAB-2105"),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let process = recreate(&flags);
        let out = mesh.try_ops(&["connect", "eu", "us"]).unwrap();
        refused(&out, 4, code, &["eu", "us"]);
        assert!(links().is_empty());
        drop(process);
    }
    let itself = mesh.try_ops(&["connect", "eu", "eu"]).unwrap();
    assert_eq!(itself.code, 4, "{itself:?}");
}

#[test]
fn invites_are_refused_when_wrong_reused_or_meant_for_another() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    let invite = |peer: &str| mesh.ops(&["invite", "--peer", peer, "--context", "eu", "-q"]).unwrap();
    let redeem = |text: &str| {
        let file = mesh.demo.file("the.invite", text).unwrap().display().to_string();
        mesh.try_ops(&["connect", &file, "--context", "us"]).unwrap()
    };
    refused(&redeem(&invite("ap")), 4, "FAB-2204", &["ap"]);
    let good = invite("us");
    let middle = good.len() / 2;
    let swapped = if &good[middle..=middle] == "a" { "b" } else { "a" };
    let mangled = format!("{}{swapped}{}", &good[..middle], &good[middle + 1..]);
    refused(&redeem(&mangled), 2, "FAB-2201", &[]);
    let done = redeem(&good);
    assert_eq!(done.code, 0, "{done:?}");
    mesh.ops(&["disconnect", "us", "--release", "--context", "eu"]).unwrap();
    refused(&redeem(&good), 4, "FAB-2203", &[]);
}

#[test]
fn machine_that_cannot_be_a_node_is_told_why() {
    fabric_tests::require_root();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let up = ["up", "--cluster", "eu", "--address", "192.0.2.1", "--state-dir", &state, "--run-dir", &state];
    let as_nobody = {
        let fabric = mesh::executable().unwrap();
        let copy = dir.path().join("fabric");
        std::fs::copy(fabric, &copy).unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let copy = copy.display().to_string();
        let mut all = vec!["--reuid", "65534", "--clear-groups", &copy];
        all.extend(up);
        run("setpriv", &all).unwrap()
    };
    refused(&as_nobody, 1, "FAB-1001", &["root"]);
    let fabric = mesh::executable().unwrap().display().to_string();
    let mut all = vec!["FABRIC_SIMULATE_MISSING=tcx", &fabric];
    all.extend(up);
    refused(&run("env", &all).unwrap(), 1, "FAB-4101", &["TCX"]);
    assert!(!std::path::Path::new(&state).join("node.yaml").exists());
    let bad = fabric_up_with(&["--cluster", "Bad_Name"]);
    assert_eq!(bad.code, 2, "{bad:?}");
    let bad = fabric_up_with(&["--cluster", "eu", "--id", "256"]);
    assert_eq!(bad.code, 2, "{bad:?}");
}

fn fabric_up_with(args: &[&str]) -> Output {
    let mut all = vec!["up"];
    all.extend(args);
    fabric(&all)
}

#[test]
fn taken_port_and_full_disk_are_named() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    // The operator's machine: nothing of Fabric runs there yet.
    let ops = &mesh.demo.operator;
    let holder =
        ops.start_in(ops.namespace(), "holder", "nc", &["-l", "-k", &ops.addresses().v4.to_string(), "4250"]).unwrap();
    let mut up = vec!["up".to_owned(), "--cluster".to_owned(), "ap".to_owned(), "--foreground".to_owned()];
    up.extend(ops.place_flags());
    let up: Vec<&str> = up.iter().map(String::as_str).collect();
    mesh.wait("the port is taken", || {
        let listening = mesh.demo.lab.exec(ops.namespace(), "ss", &["-Hlnt", "sport = 4250"])?;
        Ok((!listening.trim().is_empty()).then_some(()))
    })
    .unwrap();
    refused(&ops.fabric(&up).unwrap(), 1, "FAB-4102", &["4250"]);
    drop(holder);
    let full = ops.dir().join("state");
    std::fs::create_dir_all(&full).unwrap();
    let full = full.display().to_string();
    fabric_cli::lab::run_ok("mount", &["-t", "tmpfs", "-o", "size=4k", "none", &full]).unwrap();
    let out = ops.fabric(&up).unwrap();
    fabric_cli::lab::run_ok("umount", &["-l", &full]).unwrap();
    refused(&out, 1, "FAB-4103", &["state"]);
}

#[test]
fn unreachable_api_and_unknown_context_are_named() {
    let mesh = Mesh::start(1, "vxlan", true).unwrap();
    refused(&mesh.try_ops(&["status", "--context", "ap"]).unwrap(), 2, "FAB-1005", &["ap", "eu"]);
    let supervisor = mesh.node("us1").unwrap().pid("supervise").unwrap();
    fabric_cli::lab::signal(supervisor, "TERM").unwrap();
    mesh.wait("the API of us is gone", || {
        let out = mesh.try_ops(&["connect", "eu", "us"])?;
        if !out.stderr.contains("FAB-5103") {
            return Ok(None);
        }
        assert_ne!(out.code, 0, "{out:?}");
        Ok(Some(()))
    })
    .unwrap();
    assert!(mesh.items(&["get", "link", "--context", "eu"]).unwrap().is_empty());
}
