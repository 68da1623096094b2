//! A whole agent in a network namespace of its own, against an API that the test plays. Needs root; skips without.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "test code outside test functions")]

mod api;
mod node;

use std::time::Duration;

use clustermesh_api_proto::fabric::v1::{
    AddWorkloadRequest, DeleteWorkloadRequest, GetAgentStatusRequest, ListWorkloadsRequest, Workload,
};

use api::FakeApi;
use node::{Node, is_root, wait_for};

fn web(node: &Node) -> AddWorkloadRequest {
    AddWorkloadRequest {
        kubernetes_namespace: "shop".to_owned(),
        name: "web".to_owned(),
        labels: vec!["app=web".to_owned()],
        netns: node.workload_netns("web"),
        ..AddWorkloadRequest::default()
    }
}

async fn add(node: &Node, request: AddWorkloadRequest) -> Result<Workload, tonic::Status> {
    Ok(node.local().await.add_workload(request).await?.into_inner())
}

async fn synced(node: &Node) -> bool {
    let Some(mut local) = node.try_local().await else { return false };
    local.get_agent_status(GetAgentStatusRequest {}).await.is_ok_and(|status| status.get_ref().synced)
}

#[test]
fn a_workload_comes_up_survives_a_kill_and_goes() {
    if !is_root() {
        return;
    }
    let node = Node::new("life");
    node.run(async |node| {
        let api = FakeApi::start(node).await;
        let agent = node.start_agent(&api);
        wait_for("the agent to be in step", Duration::from_secs(20), || synced(node)).await;

        let workload = add(node, web(node)).await.unwrap();
        assert_eq!(workload.addresses, ["10.64.1.2", "fdfa:1:0:1::2"]);
        assert_eq!(workload.mtu, 1390);
        assert!(workload.identity >= 65_536 + 256, "{workload:?}");
        assert_eq!(add(node, web(node)).await.unwrap(), workload, "adding again changes nothing");
        assert_eq!(api.published("shop/web").unwrap().addresses, workload.addresses);
        let routes = node.ip("route show table 2500");
        assert!(routes.contains("10.65.0.0/16 dev fabric0") && routes.contains("src 10.64.1.1"), "{routes}");
        assert!(routes.contains("10.64.1.2 dev fab"), "{routes}");
        let inside = node.ip_in("web", "route show");
        assert!(inside.contains("default via 169.254.1.1 dev eth0"), "{inside}");
        assert!(node.ping("10.64.1.2"), "the node reaches its workload");
        assert!(node.ping("fdfa:1:0:1::2"), "the node reaches its workload over IPv6");

        // Killed: nothing is taken down, and the next one finds everything, even without an API.
        agent.kill().await;
        api.stop().await;
        assert!(node.ping("10.64.1.2"), "packets flow without an agent");
        let agent = node.start_agent(&api);
        wait_for("the workload to be restored", Duration::from_secs(20), async || {
            let Some(mut local) = node.try_local().await else { return false };
            let list = local.list_workloads(ListWorkloadsRequest {}).await;
            list.is_ok_and(|list| list.get_ref().workloads == [workload.clone()])
        })
        .await;
        assert!(node.ping("10.64.1.2"));

        // While the API is away: labels that are known are enough, others are refused in time.
        let twin = AddWorkloadRequest { name: "web-2".to_owned(), netns: node.workload_netns("web-2"), ..web(node) };
        let twin = add(node, twin).await.unwrap();
        assert_eq!(twin.identity, workload.identity);
        let stranger = AddWorkloadRequest {
            name: "db".to_owned(),
            labels: vec!["app=db".to_owned()],
            netns: node.workload_netns("db"),
            ..web(node)
        };
        let begun = std::time::Instant::now();
        let refused = add(node, stranger).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(!node.ip_in("db", "-o link show").contains("eth0"), "nothing half made is left");

        // Down, in order; the address rests.
        let mut local = node.local().await;
        let gone = DeleteWorkloadRequest { id: "shop/web".to_owned() };
        local.delete_workload(gone.clone()).await.unwrap();
        local.delete_workload(gone).await.unwrap();
        assert!(!node.ip_in("web", "-o link show").contains("eth0"));
        assert!(!node.ip("route show table all").contains("10.64.1.2 "));
        let again = add(node, web(node)).await.unwrap();
        assert_ne!(again.addresses, workload.addresses, "an address rests before it has a next owner");

        // A namespace that goes without a word takes its workload along.
        node.remove_workload_netns("web");
        wait_for("the vanished workload to be withdrawn", Duration::from_secs(20), async || {
            let list = node.local().await.list_workloads(ListWorkloadsRequest {}).await.unwrap();
            list.get_ref().workloads.iter().all(|one| one.id != "shop/web")
        })
        .await;
        agent.kill().await;
    });
    node.clean_up();
}

#[test]
fn a_machine_is_itself_the_workload() {
    if !is_root() {
        return;
    }
    let node = Node::machine("vm");
    node.run(async |node| {
        let api = FakeApi::start(node).await;
        let agent = node.start_agent(&api);
        wait_for("the machine to have its identity", Duration::from_secs(20), async || {
            let Some(mut local) = node.try_local().await else { return false };
            let list = local.list_workloads(ListWorkloadsRequest {}).await;
            list.is_ok_and(|list| list.get_ref().workloads.iter().any(|one| one.identity != 0))
        })
        .await;
        assert_eq!(api.published("db1").unwrap().addresses, ["10.64.255.7"]);
        assert!(node.ip("-o addr show dev fabric0").contains("10.64.255.7/32"));
        let routes = node.ip("route show table 2500");
        assert!(routes.contains("10.65.0.0/16 dev fabric0") && routes.contains("src 10.64.255.7"), "{routes}");
        assert!(!routes.contains("default dev fabric0"), "{routes}");
        let refused = add(node, web(node)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        agent.kill().await;
    });
    node.clean_up();
}
