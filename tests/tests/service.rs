//! Global services: one name, backends in every cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use fabric_tests::{Mesh, Workload, mesh};

const CART: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
";

struct Shop<'a> {
    mesh: &'a Mesh,
    clients: [(Workload<'a>, &'static str); 2],
    servers: Vec<fabric_cli::lab::Process>,
}

fn serve(cart: &Workload<'_>, says: &str) -> fabric_cli::lab::Process {
    let fabric = mesh::executable().unwrap().display().to_string();
    cart.node.start_in(&cart.namespace, says, &fabric, &["demo", "serve", "--port", "8080", "--text", says]).unwrap()
}

fn shop(mesh: &Mesh) -> Shop<'_> {
    let mut servers = Vec::new();
    for (node, cluster) in [("eu1", "eu"), ("us1", "us")] {
        let cart = mesh.workload(node, &format!("cart-{cluster}"), "cart").unwrap();
        servers.push(serve(&cart, cluster));
        mesh.apply(cluster, CART).unwrap();
    }
    let clients =
        [("eu1", "eu"), ("us1", "us")].map(|(node, c)| (mesh.workload(node, &format!("web-{c}"), "web").unwrap(), c));
    Shop { mesh, clients, servers }
}

impl Shop<'_> {
    fn address(&self, cluster: &str, v6: bool) -> String {
        let services = self.mesh.items(&["service", "list", "--context", cluster]).unwrap();
        let cart = services.iter().find(|s| s["name"] == "cart").expect("cart is listed");
        let addresses = cart["addresses"].as_array().unwrap().iter().filter_map(|a| a.as_str());
        let address = addresses.into_iter().find(|a| a.contains(':') == v6).expect("an address of the family");
        if v6 { format!("[{address}]:80") } else { format!("{address}:80") }
    }

    /// Which clusters answer, of 20 new connections; an error when one fails.
    fn answers(&self, client: usize, v6: bool) -> Result<BTreeSet<String>> {
        let (from, cluster) = &self.clients[client];
        let address = self.address(cluster, v6);
        let fabric = mesh::executable()?.display().to_string();
        let args = ["demo", "get", &address, "--count", "20", "--within-ms", "1000"];
        let said = from.node.run_in(&from.namespace, Duration::from_secs(30), &fabric, &args)?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    fn wait(&self, client: usize, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
        let what = format!("{} sees {wanted:?}", self.clients[client].1);
        let same = || Ok(self.answers(client, false).is_ok_and(|seen| seen == wanted).then_some(()));
        self.mesh.wait(&what, same).unwrap();
    }
}

#[test]
fn shared_service_has_backends_of_both_clusters_and_preferences_hold() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let mut shop = shop(&mesh);
    shop.wait(0, &["eu"]);
    shop.wait(1, &["us"]);
    mesh.ops(&["service", "share", "shop/cart"]).unwrap();
    for client in [0, 1] {
        shop.wait(client, &["eu", "us"]);
        assert_eq!(shop.answers(client, true).unwrap().len(), 2, "IPv6");
    }
    mesh.ops(&["service", "share", "shop/cart", "--prefer", "local"]).unwrap();
    shop.wait(0, &["eu"]);
    shop.wait(1, &["us"]);
    mesh.ops(&["service", "share", "shop/cart", "--prefer", "remote"]).unwrap();
    shop.wait(0, &["us"]);
    shop.wait(1, &["eu"]);
    mesh.ops(&["service", "share", "shop/cart", "--prefer", "local"]).unwrap();
    shop.wait(0, &["eu"]);
    local_backends_gone(&mut shop);
    mesh.ops(&["service", "unshare", "shop/cart"]).unwrap();
    mesh.wait("without sharing, eu has no cart", || Ok(shop.answers(0, false).is_err().then_some(()))).unwrap();
    shop.wait(1, &["us"]);
}

/// All local backends go: the remote ones serve within two seconds, at the same address.
fn local_backends_gone(shop: &mut Shop<'_>) {
    let node = shop.mesh.node("eu1").unwrap();
    node.local(&["workload", "delete", "cart-eu", "-n", "shop"]).unwrap();
    let gone = std::time::Instant::now();
    shop.wait(0, &["us"]);
    let took = gone.elapsed();
    assert!(took < Duration::from_secs(2), "the remote backends took over after {took:?}");
    assert!(!shop.servers.is_empty());
}
