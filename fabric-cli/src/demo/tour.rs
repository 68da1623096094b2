//! The tour: what a person would type, in order, and what must be seen each time.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::build::{Demo, VM};
use super::{Plan, Runner};
use crate::failure::{Failure, Outcome};
use crate::lab::{Node, Process, wait_until};

/// A service of the two first clusters, with one backend each.
const CART: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
";

/// On the VM: only the first cluster's carts may reach the database; all else is denied by default.
const DB_POLICY: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db-in, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
  - fromEndpoints:
    - matchLabels: {app: cart, io.cilium.k8s.policy.cluster: us}
    toPorts: [{ports: [{port: \"5432\", protocol: TCP}]}]
";

const CART_PORT: u16 = 8080;
const DB_PORT: u16 = 5432;

/// What one command may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A workload of the tour.
struct Workload<'a> {
    node: &'a Node,
    namespace: String,
    address: String,
}

/// Runs the whole tour and takes everything down.
pub(super) fn once(runner: &mut Runner, plan: &Plan) -> Outcome {
    let demo = build(runner, plan)?;
    let web_eu = workload(runner, &demo, "web", 0, 0)?;
    let cart_eu = workload(runner, &demo, "cart", 0, 1)?;
    let web_us = workload(runner, &demo, "web", 1, 0)?;
    let cart_us = workload(runner, &demo, "cart", 1, 1)?;
    for (cart, cluster) in [(&cart_eu, "eu"), (&cart_us, "us")] {
        runner.step(&format!("serve cart in {cluster}"), || {
            serve(&demo, cart, CART_PORT, &format!("cart in {cluster}"))
        })?;
    }
    runner.step("before: eu and us are strangers", || {
        ensure!(get(&web_eu, &cart_us.address, CART_PORT).is_err(), "eu reached us before they were connected");
        Ok(((), "no reply".to_owned()))
    })?;
    runner.step("fabric connect eu us", || Ok(((), last_line(&demo, &["connect", "eu", "us"])?)))?;
    runner.step("first cross-cluster reply", || {
        let text =
            wait_until(WITHIN, "eu gets a reply from us", || Ok(get(&web_eu, &cart_us.address, CART_PORT).ok()))?;
        Ok(((), format!("{:?} from {}", text.trim(), cart_us.address)))
    })?;
    let since_start = runner.elapsed();
    runner.step("from start to that reply", || Ok(((), format!("{:.1} s", since_start.as_secs_f32()))))?;
    global_service(runner, &demo, &[(&web_eu, "eu"), (&web_us, "us")])?;
    machine(runner, &demo, plan, &web_us, &cart_us)?;
    if plan.encryption {
        runner.step("nothing in clear on the underlay", || nothing_in_clear(&demo, &web_eu, &cart_us))?;
    }
    runner.step("kill -9 of an agent", || agent_killed(&demo, &web_eu, &cart_us))?;
    runner.step("fabric disconnect us", || {
        demo.ops(&["disconnect", "us", "--context", "eu"])?;
        wait_until(WITHIN, "eu no longer reaches us", || {
            Ok(get(&web_eu, &cart_us.address, CART_PORT).is_err().then_some(()))
        })?;
        Ok(((), "no reply; the prefixes of us are dropped".to_owned()))
    })?;
    runner.step("tear down", || {
        let name = demo.lab.name().to_owned();
        drop(demo);
        let left =
            std::fs::read_dir("/run/netns")?.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&name));
        ensure!(left.count() == 0, "namespaces of {name} are left");
        Ok(((), "nothing left".to_owned()))
    })
}

/// Machines and clusters, up and ready, not connected.
pub(super) fn build(runner: &mut Runner, plan: &Plan) -> Result<Demo, Failure> {
    let machines = format!("{} clusters x {} nodes, a VM, a router", plan.clusters, plan.nodes);
    let demo = runner.step("make machines", || Ok((Demo::new(plan)?, machines)))?;
    runner.step("fabric up, fabric join", || {
        std::thread::scope(|scope| {
            let starts: Vec<_> = demo.clusters.iter().map(|c| scope.spawn(|| demo.start(c, plan))).collect();
            starts.into_iter().try_for_each(|s| s.join().map_err(|_| anyhow::anyhow!("a start panicked"))?)
        })?;
        let names: Vec<&str> = demo.clusters.iter().map(|c| c.name).collect();
        let how = if plan.encryption { "WireGuard" } else { "in clear" };
        Ok(((), format!("{}: {}, {how}", names.join(", "), plan.routing)))
    })?;
    if plan.routing == "native" {
        runner.step("static routes of the router", || Ok(((), format!("{} ranges", demo.route_ranges()?))))?;
    }
    Ok(demo)
}

fn workload<'a>(
    runner: &mut Runner,
    demo: &'a Demo,
    app: &str,
    cluster: usize,
    node: usize,
) -> Result<Workload<'a>, Failure> {
    let place = || -> Result<(&str, &Node)> {
        let cluster = demo.cluster(cluster)?;
        Ok((cluster.name, cluster.nodes.get(node).or(cluster.nodes.first()).context("no node")?))
    };
    let (name, node) = place()?;
    runner.step(&format!("workload shop/{app} on {}", node.name()), || {
        let namespace = node.add_workload(&demo.lab, &format!("{app}-{name}"), "shop", &format!("app={app}"))?;
        let listed = json(&node.local(&["workload", "list", "-o", "json"])?)?;
        let found = items(&listed).find(|w| text(w, "name") == format!("{app}-{name}")).context("not listed")?;
        let address = texts(found, "addresses").find(|a| !a.contains(':')).context("no IPv4 address")?;
        let detail = format!("{address}, identity {}", found.get("identity").unwrap_or(&Value::Null));
        Ok((Workload { node, namespace, address }, detail))
    })
}

fn serve(demo: &Demo, workload: &Workload<'_>, port: u16, says: &str) -> Result<((), String)> {
    let fabric = std::env::current_exe()?.display().to_string();
    let port_text = port.to_string();
    let args = ["demo", "serve", "--port", &port_text, "--text", says];
    let process: Process =
        workload.node.start_in(&workload.namespace, &format!("serve-{port}-{}", workload.namespace), &fabric, &args)?;
    demo.keep(process);
    wait_until(WITHIN, "the service answers", || {
        Ok(get_from(workload.node, &workload.namespace, &workload.address, port, 1).ok())
    })?;
    Ok(((), format!("{}:{port}", workload.address)))
}

fn get(client: &Workload<'_>, address: &str, port: u16) -> Result<String> {
    get_from(client.node, &client.namespace, address, port, 1)
}

fn get_from(node: &Node, namespace: &str, address: &str, port: u16, count: u32) -> Result<String> {
    let fabric = std::env::current_exe()?.display().to_string();
    let (to, count) = (format!("{address}:{port}"), count.to_string());
    node.run_in(namespace, WITHIN, &fabric, &["demo", "get", &to, "--count", &count, "--within-ms", "500"])
}

fn global_service(runner: &mut Runner, demo: &Demo, clients: &[(&Workload<'_>, &str)]) -> Result<(), Failure> {
    runner.step("fabric apply: service shop/cart", || {
        let file = demo.file("cart.yaml", CART)?.display().to_string();
        for (_, cluster) in clients {
            demo.ops(&["apply", "-f", &file, "--context", cluster])?;
        }
        Ok(((), "in both clusters".to_owned()))
    })?;
    runner.step("fabric service share shop/cart", || {
        demo.ops(&["service", "share", "shop/cart"])?;
        Ok(((), "one name, backends of both".to_owned()))
    })?;
    for (client, cluster) in clients {
        runner.step(&format!("{cluster} reaches both carts"), || {
            let address = service_address(demo, cluster)?;
            let wanted = BTreeSet::from(["cart in eu".to_owned(), "cart in us".to_owned()]);
            let seen = wait_until(WITHIN, "both clusters' carts answer", || {
                let answers = get_from(client.node, &client.namespace, &address, 80, 16).unwrap_or_default();
                let seen: BTreeSet<String> = answers.lines().map(str::to_owned).collect();
                Ok((seen == wanted).then_some(seen))
            })?;
            Ok(((), format!("{address}:80 answers {}", seen.into_iter().collect::<Vec<_>>().join(" and "))))
        })?;
    }
    Ok(())
}

fn service_address(demo: &Demo, cluster: &str) -> Result<String> {
    let services = json(&demo.ops(&["service", "list", "-o", "json", "--context", cluster])?)?;
    let cart = items(&services).find(|s| text(s, "name") == "cart").context("no service cart")?;
    texts(cart, "addresses").find(|a| !a.contains(':')).context("cart has no IPv4 address")
}

fn machine(
    runner: &mut Runner,
    demo: &Demo,
    plan: &Plan,
    web_us: &Workload<'_>,
    cart_us: &Workload<'_>,
) -> Result<(), Failure> {
    let token = runner.step("fabric token create --name vm1", || {
        let args = ["token", "create", "--name", VM, "-n", "shop", "--labels", "app=db", "--context", "eu", "-q"];
        Ok((demo.ops(&args)?.trim().to_owned(), "for one machine, once".to_owned()))
    })?;
    let address = runner.step("fabric join TOKEN, on the VM", || {
        demo.join(&demo.vm, &token, None)?;
        demo.wait_ready(&demo.vm)?;
        let nodes = json(&demo.ops(&["node", "list", "-o", "json", "--context", "eu"])?)?;
        let vm = items(&nodes).find(|n| text(n, "name") == VM).context("the VM is not listed")?;
        let range = texts(vm, "ranges").find(|a| !a.contains(':')).context("the VM has no IPv4 address")?;
        let address = range.trim_end_matches("/32").to_owned();
        Ok((address.clone(), format!("app=db, {address}")))
    })?;
    if plan.routing == "native" {
        runner.step("static routes for the VM", || Ok(((), format!("{} ranges", demo.route_ranges()?))))?;
    }
    let db = Workload { node: &demo.vm, namespace: demo.vm.namespace().to_owned(), address };
    runner.step("serve db on the VM", || serve(demo, &db, DB_PORT, "db on the vm"))?;
    runner.step("us reaches the VM of eu", || {
        let said = wait_until(WITHIN, "us reaches the VM", || Ok(get(web_us, &db.address, DB_PORT).ok()))?;
        Ok(((), said.trim().to_owned()))
    })?;
    runner.step("fabric apply: only cart of us to db", || {
        let file = demo.file("db-in.yaml", DB_POLICY)?.display().to_string();
        demo.ops(&["apply", "-f", &file, "--context", "eu"])?;
        wait_until(WITHIN, "web of us is denied", || Ok(get(web_us, &db.address, DB_PORT).is_err().then_some(())))?;
        let said = get(cart_us, &db.address, DB_PORT).context("cart of us is denied as well")?;
        Ok(((), format!("web of us denied, cart of us: {:?}", said.trim())))
    })?;
    runner.step("fabric observe shows the drop", || {
        let shown = wait_until(WITHIN, "the drop shows", || {
            let args = ["observe", "--context", "eu", "--verdict", "DROPPED", "--last", "50", "-o", "jsonl"];
            let flows = demo.ops(&args)?;
            let drop = flows
                .lines()
                .find(|l| l.contains("app=web") && l.contains("app=db") && l.contains("133"))
                .map(str::to_owned);
            Ok(drop)
        })?;
        let flow = json(&shown)?;
        let side = |s: &str| flow.pointer(&format!("/flow/{s}/identity")).cloned().unwrap_or_default();
        Ok(((), format!("reason 133, identity {} to {}", side("source"), side("destination"))))
    })
}

/// Captures on the router while traffic runs: WireGuard and the control plane's TLS are all that may show.
fn nothing_in_clear(demo: &Demo, client: &Workload<'_>, server: &Workload<'_>) -> Result<((), String)> {
    let capture = |name: &str, filter: &str| {
        let log = demo.lab.dir().join(format!("{name}.log"));
        let cgroup = demo.lab.cgroup().join("capture");
        let place = crate::lab::Place { namespace: demo.underlay.router(), cgroup: &cgroup, log: &log, env: &[] };
        Process::start(&place, "tcpdump", &["-i", "any", "-n", "-l", "--immediate-mode", filter])
    };
    let allowed = "(udp port 51871) or (tcp port 2379 or 4250 or 4244) or arp or (icmp6 and ip6[40] >= 133)";
    let mut sealed = capture("sealed", "udp port 51871")?;
    let mut clear = capture("clear", &format!("not ({allowed})"))?;
    for process in [&sealed, &clear] {
        wait_until(WITHIN, "tcpdump listens", || Ok(process.output()?.contains("listening on").then_some(())))?;
    }
    for _ in 0..3 {
        get(client, &server.address, CART_PORT)?;
    }
    let packets = |text: &str| text.lines().filter(|l| l.contains(" > ") || l.contains(" IP")).count();
    wait_until(WITHIN, "encrypted packets show", || Ok((packets(&sealed.output()?) > 0).then_some(())))?;
    sealed.stop(WITHIN)?;
    clear.stop(WITHIN)?;
    let (sealed, leaked) = (packets(&sealed.output()?), clear.output()?);
    ensure!(packets(&leaked) == 0, "in clear: {leaked}");
    Ok(((), format!("{sealed} WireGuard packets seen, 0 others but the control plane's TLS")))
}

/// Kills the client's agent with no warning, and asks the other cluster all the while.
fn agent_killed(demo: &Demo, client: &Workload<'_>, server: &Workload<'_>) -> Result<((), String)> {
    let old = client.node.signal("agent", "KILL")?;
    let mut replies = 0;
    let new = wait_until(WITHIN, "the agent is back", || {
        get(client, &server.address, CART_PORT).context("a request failed while the agent was away")?;
        replies += 1;
        Ok(client.node.pid("agent").ok().filter(|new| *new != old))
    })?;
    demo.wait_ready(client.node)?;
    Ok(((), format!("{replies} of {replies} requests answered meanwhile; agent {old} → {new}")))
}

fn last_line(demo: &Demo, args: &[&str]) -> Result<String> {
    let out = demo.operator.fabric(args)?;
    let said = out.stderr.lines().last().unwrap_or_default().to_owned();
    out.into_result()?;
    Ok(said.split("   ").next().unwrap_or_default().to_owned())
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("not JSON: {text:?}"))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, field: &str) -> impl Iterator<Item = String> {
    let all = value.get(field).and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned)
}

/// What to type, for a person who wants to look around.
pub(super) fn text_for(demo: &Demo) -> Result<String> {
    let bin = demo.lab.dir().join("bin");
    std::fs::create_dir_all(&bin)?;
    let fabric = std::env::current_exe()?;
    let config = demo.lab.dir().join("contexts");
    let script = format!(
        "#!/bin/sh\nexec nsenter --net=/run/netns/{} env FABRIC_CONFIG={} {} \"$@\"\n",
        demo.operator.namespace(),
        config.display(),
        fabric.display()
    );
    let wrapper = bin.join("fabric");
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let Some(node) = demo.clusters.first().and_then(|c| c.nodes.first()) else { bail!("the demo has no node") };
    Ok(format!(
        "Clusters: {}.  In another shell, as root:\n\n  export PATH={}:$PATH\n  fabric status --context eu\n  fabric connect eu us\n  fabric node list -o wide\n  fabric token create --name vm1 --labels app=db --context eu\n  fabric observe --follow --context eu\n  wg show {}\n\nA machine is a network namespace: nsenter --net=/run/netns/{} bash\nIts folders: {}\n",
        demo.clusters.iter().map(|c| c.name).collect::<Vec<_>>().join(", "),
        bin.display(),
        node.wireguard(),
        node.namespace(),
        node.dir().display(),
    ))
}
