//! The relay behind the API's port, over real TLS on loopback, with observers that serve what a test gives them.

mod world;

use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use clustermesh_api_proto::observer::observer_client::ObserverClient;
use clustermesh_api_proto::observer::{
    GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest,
    GetNodesRequest, ServerStatusRequest,
};
use clustermesh_api_proto::relay::{NodeState, NodeStatusEvent};
use futures::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use self::world::{World, within};
use super::MOST_READERS;
use crate::pki::Role;

fn newest(number: u64) -> GetFlowsRequest {
    GetFlowsRequest { number, ..GetFlowsRequest::default() }
}

fn following() -> GetFlowsRequest {
    GetFlowsRequest { follow: true, ..newest(100) }
}

async fn all(client: &mut ObserverClient<Channel>, request: GetFlowsRequest) -> Vec<GetFlowsResponse> {
    let stream = within(client.get_flows(request)).await.unwrap().into_inner();
    within(stream.map(Result::unwrap).collect()).await
}

async fn open(world: &World, request: GetFlowsRequest) -> Streaming<GetFlowsResponse> {
    within(world.admin().get_flows(request)).await.unwrap().into_inner()
}

/// Time and node of a flow.
fn flow(answer: &GetFlowsResponse) -> Option<(i64, &str)> {
    let Some(ResponseTypes::Flow(flow)) = &answer.response_types else { return None };
    assert_eq!(flow.node_name, answer.node_name);
    Some((answer.time?.seconds, &answer.node_name))
}

fn flows(answers: &[GetFlowsResponse]) -> Vec<(i64, &str)> {
    answers.iter().filter_map(flow).collect()
}

fn state(answer: &GetFlowsResponse) -> Option<(NodeState, &NodeStatusEvent)> {
    let Some(ResponseTypes::NodeStatus(event)) = &answer.response_types else { return None };
    Some((event.state_change(), event))
}

async fn next(stream: &mut Streaming<GetFlowsResponse>) -> GetFlowsResponse {
    within(stream.next()).await.unwrap().unwrap()
}

async fn next_flow(stream: &mut Streaming<GetFlowsResponse>) -> (i64, String) {
    let answer = next(stream).await;
    let (time, node) = flow(&answer).unwrap_or_else(|| panic!("no flow: {answer:?}"));
    (time, node.to_owned())
}

/// The next change of a node's state; flows before it are passed over.
async fn next_state(stream: &mut Streaming<GetFlowsResponse>) -> (NodeState, String) {
    loop {
        let answer = next(stream).await;
        if let Some((state, event)) = state(&answer) {
            return (state, event.node_names.join(","));
        }
    }
}

#[tokio::test]
async fn newest_flows_of_all_nodes_come_by_time() {
    let world = World::start().await;
    let (n1, n2, n3) = (world.node("n1").await, world.node("n2").await, world.node("n3").await);
    n1.add([10, 40, 60]);
    n2.add([20, 50]);
    n3.add([30]);
    world.register(&[&n1, &n2, &n3]).await;
    let answers = all(&mut world.admin(), newest(4)).await;
    assert_eq!(flows(&answers), [(30, "eu/n3"), (40, "eu/n1"), (50, "eu/n2"), (60, "eu/n1")]);
    assert_eq!(answers.len(), 4);
    let answers = all(&mut world.admin(), GetFlowsRequest { first: true, ..newest(3) }).await;
    assert_eq!(flows(&answers), [(10, "eu/n1"), (20, "eu/n2"), (30, "eu/n3")]);
    let both = GetFlowsRequest { first: true, ..following() };
    assert_eq!(world.admin().get_flows(both).await.unwrap_err().code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_told_and_holds_nobody_up() {
    let world = World::start().await;
    let (n1, dead, silent) = (world.node("n1").await, world.dead("n2").await, world.silent("n3").await);
    n1.add([1, 2]);
    world.register(&[&n1, &dead, &silent]).await;

    let answers = all(&mut world.admin(), newest(10)).await;
    assert_eq!(flows(&answers), [(1, "eu/n1"), (2, "eu/n1")]);
    let told: Vec<_> = answers.iter().filter_map(state).collect();
    let names: Vec<_> = told.iter().map(|(state, event)| (*state, event.node_names.join(","))).collect();
    let unavailable = |name: &str| (NodeState::NodeUnavailable, name.to_owned());
    assert_eq!(names, [unavailable("eu/n2"), unavailable("eu/n3")]);
    assert!(told[0].1.message.contains("refused"), "{}", told[0].1.message);
    assert!(told[1].1.message.contains("within"), "{}", told[1].1.message);

    // While the silent one is still being waited for, the other's flows are there.
    let mut stream = open(&world, following()).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let answer = next(&mut stream).await;
        assert_ne!(answer.node_name, "eu/n3", "told too late: {answer:?}");
        seen.extend(flow(&answer).map(|(time, _)| time));
    }
    assert_eq!(seen, [1, 2]);
    world.stop().await;
}

#[tokio::test]
async fn a_node_is_believed_only_as_itself() {
    let world = World::start().await;
    let impostor = world.impostor("n1", Role::Node("n2".parse().unwrap())).await;
    impostor.add([1]);
    world.register(&[&impostor]).await;
    let answers = all(&mut world.admin(), newest(10)).await;
    let (state, event) = state(&answers[0]).unwrap();
    assert_eq!((state, answers.len()), (NodeState::NodeUnavailable, 1));
    assert_eq!(event.message, "the server is spiffe://eu/node/n2, not spiffe://eu/node/n1");
    world.stop().await;
}

#[tokio::test]
async fn followers_see_nodes_come_fail_return_and_go() {
    let world = World::start().await;
    let (n1, mut n2) = (world.node("n1").await, world.node("n2").await);
    n1.add([1]);
    world.register(&[&n1]).await;
    let mut stream = open(&world, following()).await;
    assert_eq!(next_flow(&mut stream).await, (1, "eu/n1".to_owned()));
    n1.add([2]);
    assert_eq!(next_flow(&mut stream).await, (2, "eu/n1".to_owned()));

    // What happened before the reader came is not told when a node comes later.
    n2.add([3]);
    world.register(&[&n1, &n2]).await;
    assert_eq!(next_state(&mut stream).await, (NodeState::NodeConnected, "eu/n2".to_owned()));
    let soon = world::soon();
    n2.add([soon]);
    assert_eq!(next_flow(&mut stream).await, (soon, "eu/n2".to_owned()));

    n2.kill().await;
    assert_eq!(next_state(&mut stream).await, (NodeState::NodeUnavailable, "eu/n2".to_owned()));
    n1.add([soon + 1]);
    assert_eq!(next_flow(&mut stream).await, (soon + 1, "eu/n1".to_owned()));
    n2.add([soon + 2]);
    n2.revive();
    assert_eq!(next_state(&mut stream).await, (NodeState::NodeConnected, "eu/n2".to_owned()));
    assert_eq!(next_flow(&mut stream).await, (soon + 2, "eu/n2".to_owned()), "neither twice nor left out");

    world.register(&[&n2]).await;
    assert_eq!(next_state(&mut stream).await, (NodeState::NodeGone, "eu/n1".to_owned()));
    n2.add([soon + 3]);
    assert_eq!(next_flow(&mut stream).await, (soon + 3, "eu/n2".to_owned()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_what_it_lost() {
    const MANY: i64 = 40_000;
    let world = World::start().await;
    let n1 = world.node("n1").await;
    world.register(&[&n1]).await;
    let mut stream = open(&world, GetFlowsRequest { number: MANY.unsigned_abs(), ..following() }).await;
    n1.add(1..=MANY);
    // The reader does not read until the node was rid of all.
    within(n1.served(MANY)).await;
    let (mut seen, mut lost, mut last) = (0, 0, 0);
    while seen + lost < MANY {
        let answer = next(&mut stream).await;
        if let Some(ResponseTypes::LostEvents(event)) = &answer.response_types {
            lost += i64::try_from(event.num_events_lost).unwrap();
        } else {
            let (time, _) = flow(&answer).unwrap();
            assert!(time > last, "{time} after {last}");
            (seen, last) = (seen + 1, time);
        }
    }
    assert!(lost > 0 && seen > 0, "seen {seen}, lost {lost}");
    assert_eq!(seen + lost, MANY);
    world.stop().await;
}

#[tokio::test]
async fn nodes_statuses_and_namespaces_are_joined() {
    let world = World::start().await;
    let (n1, n2, dead) = (world.node("n1").await, world.node("n2").await, world.dead("n3").await);
    n1.add([1, 2]);
    n2.add([3]);
    n1.namespaces(&["shop", "default"]);
    n2.namespaces(&["default", "audit"]);
    world.register(&[&n1, &n2, &dead]).await;
    let mut admin = world.admin();

    let nodes = within(admin.get_nodes(GetNodesRequest {})).await.unwrap().into_inner().nodes;
    let short: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.state(), node.num_flows)).collect();
    let (up, down) = (NodeState::NodeConnected, NodeState::NodeUnavailable);
    assert_eq!(short, [("eu/n1", up, 2), ("eu/n2", up, 1), ("eu/n3", down, 0)]);
    assert_eq!((nodes[0].version.as_str(), &nodes[0].address), ("fake", &n1.address().to_string()));
    assert_eq!(nodes[0].tls.as_ref().unwrap().server_name, "spiffe://eu/node/n1");

    let status = within(admin.server_status(ServerStatusRequest {})).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (3, 2000, 3));
    assert_eq!((status.num_connected_nodes, status.num_unavailable_nodes), (Some(2), Some(1)));
    assert_eq!(status.unavailable_nodes, ["eu/n3"]);

    let answer = within(admin.get_namespaces(GetNamespacesRequest {})).await.unwrap().into_inner();
    let names: Vec<_> = answer.namespaces.iter().map(|n| format!("{}/{}", n.cluster, n.namespace)).collect();
    assert_eq!(names, ["eu/audit", "eu/default", "eu/shop"]);
    world.stop().await;
}

/// How each call ends.
async fn codes(mut client: ObserverClient<Channel>) -> [Option<Code>; 6] {
    fn code<T>(answer: Result<T, Status>) -> Option<Code> {
        answer.err().map(|status| status.code())
    }
    [
        code(client.get_flows(newest(1)).await),
        code(client.get_nodes(GetNodesRequest {}).await),
        code(client.get_namespaces(GetNamespacesRequest {}).await),
        code(client.server_status(ServerStatusRequest {}).await),
        code(client.get_agent_events(GetAgentEventsRequest::default()).await),
        code(client.get_debug_events(GetDebugEventsRequest::default()).await),
    ]
}

#[tokio::test]
async fn only_administrators_read_flows() {
    let world = World::start().await;
    let none = Some(Code::Unimplemented);
    assert_eq!(within(codes(world.admin())).await, [None, None, None, None, none, none]);
    for role in [Role::Node("n1".parse().unwrap()), Role::Machine("m1".parse().unwrap()), Role::Api] {
        assert_eq!(within(codes(world.client(Some(role)))).await, [Some(Code::PermissionDenied); 6]);
    }
    assert_eq!(within(codes(world.client(None))).await, [Some(Code::Unauthenticated); 6]);
    world.stop().await;
}

#[tokio::test]
async fn a_request_that_no_node_understands_fails() {
    let world = World::start().await;
    let n1 = world.node("n1").await;
    world.register(&[&n1]).await;
    let odd = GetFlowsRequest { extensions: Some(prost_types::Any::default()), ..newest(1) };
    let status = within(world.admin().get_flows(odd)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no extension is known"));
    world.stop().await;
}

#[tokio::test]
async fn readers_are_bounded_and_give_their_place_back() {
    let world = World::start().await;
    let mut streams = Vec::new();
    for _ in 0..MOST_READERS {
        streams.push(open(&world, following()).await);
    }
    let refused = within(world.admin().get_flows(following())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    streams.pop();
    let again = async {
        while world.admin().get_flows(following()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    within(again).await;
    world.stop().await;
}

#[tokio::test]
async fn hubbles_health_name_is_known() {
    let world = World::start().await;
    let mut health = HealthClient::new(world.channel(None));
    for service in ["", "hubble.server.Observer"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = within(health.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status().as_str_name(), "SERVING");
    }
    world.stop().await;
}
