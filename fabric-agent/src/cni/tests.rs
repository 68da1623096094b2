//! Golden answers per version, refusals with their codes, and the plugin against a served socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use clustermesh_api_proto::fabric::v1::local_server::{Local, LocalServer};
use clustermesh_api_proto::fabric::v1::{
    AddWorkloadRequest, AgentStatus, DeleteWorkloadRequest, DeleteWorkloadResponse, GetAgentStatusRequest,
    LeaveRequest, LeaveResponse, ListWorkloadsRequest, Workload, WorkloadList,
};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request as GrpcRequest, Response, Status};

use super::answer::{self, Code};
use super::client::perform;
use super::request::{Command, Request};
use super::*;

fn environment(command: &str) -> Environment {
    environment_with(command, &[])
}

fn environment_with(command: &str, more: &[(&str, &str)]) -> Environment {
    let mut all = BTreeMap::from([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/run/netns/blue"),
        ("CNI_IFNAME", "eth0"),
    ]);
    all.extend(more.iter().copied());
    Environment::from_lookup(|name| all.get(name).map(|value| (*value).to_owned()))
}

fn config(version: &str, more: &Value) -> Vec<u8> {
    let mut config = json!({"cniVersion": version, "name": "fabric", "type": "fabric-cni"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config.to_string().into_bytes()
}

fn parse(environment: &Environment, input: &[u8]) -> Result<Request, answer::CniError> {
    Request::parse(environment, input)
}

fn workload() -> Workload {
    Workload {
        id: "c0ffee:eth0".to_owned(),
        kubernetes_namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        netns: "/run/netns/blue".to_owned(),
        interface: "eth0".to_owned(),
        host_interface: "fab0123abcd".to_owned(),
        addresses: vec!["10.64.1.2".to_owned(), "fdfa:1::2".to_owned()],
        mac: "02:00:00:00:00:01".to_owned(),
        gateways: vec!["169.254.1.1".to_owned(), "fe80::1".to_owned()],
        ..Workload::default()
    }
}

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cni/testdata").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn results_have_the_form_of_their_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let request = parse(&environment("ADD"), &config(version, &json!({}))).unwrap();
        let mut expected = golden(if version == "1.0.0" { "add-1.0.0.json" } else { "add-0.4.0.json" });
        expected["cniVersion"] = json!(version);
        assert_eq!(answer::added(request.version, &workload()), expected, "{version}");
    }
}

#[test]
fn version_lists_what_is_supported_to_any_caller() {
    let expected = golden("version.json");
    assert_eq!(run(&environment("VERSION"), br#"{"cniVersion":"1.0.0"}"#).unwrap(), Some(expected.clone()));
    assert_eq!(run(&environment("VERSION"), br#"{"cniVersion":"9.9.9"}"#).unwrap(), Some(expected));
}

#[test]
fn add_takes_name_and_labels_from_the_runtime() {
    let environment = environment_with(
        "ADD",
        &[("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=4")],
    );
    let more = json!({
        "args": {"cni": {"labels": [{"key": "app", "value": "web"}, {"key": "tier", "value": "x"}]}},
        "runtimeConfig": {"labels": {"tier": "front"}},
        "agentSocket": "/run/x.sock",
    });
    let request = parse(&environment, &config("1.0.0", &more)).unwrap();
    assert_eq!(request.id, "c0ffee:eth0");
    assert_eq!(request.socket, Path::new("/run/x.sock"));
    let Command::Add(attachment) = request.command else { panic!("{:?}", request.command) };
    assert_eq!(attachment.kubernetes_namespace, "shop");
    assert_eq!(attachment.name, "web-1");
    assert_eq!(attachment.labels, ["app=web", "tier=front"]);
}

#[test]
fn without_kubernetes_the_container_is_the_name() {
    let request = parse(&environment("ADD"), &config("1.0.0", &json!({}))).unwrap();
    let Command::Add(attachment) = request.command else { panic!("{:?}", request.command) };
    assert_eq!((attachment.kubernetes_namespace.as_str(), attachment.name.as_str()), ("default", "c0ffee"));
}

#[test]
fn delete_needs_no_namespace() {
    let request = parse(&environment_with("DEL", &[("CNI_NETNS", "")]), &config("1.0.0", &json!({}))).unwrap();
    assert_eq!(request.command, Command::Delete);
}

#[test]
fn refusals_carry_the_code_of_the_specification() {
    let good = config("1.0.0", &json!({}));
    let cases: Vec<(Environment, Vec<u8>, Code)> = vec![
        (environment(""), good.clone(), Code::InvalidEnvironment),
        (environment("MOVE"), good.clone(), Code::InvalidEnvironment),
        (environment_with("ADD", &[("CNI_CONTAINERID", "")]), good.clone(), Code::InvalidEnvironment),
        (environment_with("ADD", &[("CNI_CONTAINERID", "../x")]), good.clone(), Code::InvalidEnvironment),
        (environment_with("ADD", &[("CNI_IFNAME", "a/b")]), good.clone(), Code::InvalidEnvironment),
        (environment_with("ADD", &[("CNI_IFNAME", "sixteen-letters!")]), good.clone(), Code::InvalidEnvironment),
        (environment_with("ADD", &[("CNI_NETNS", "")]), good.clone(), Code::InvalidEnvironment),
        (environment_with("ADD", &[("CNI_ARGS", "x")]), good, Code::InvalidEnvironment),
        (environment("ADD"), b"{".to_vec(), Code::Decode),
        (environment("ADD"), b"[]".to_vec(), Code::Decode),
        (environment("ADD"), br#"{"name":"x"}"#.to_vec(), Code::InvalidConfig),
        (environment("ADD"), br#"{"cniVersion":"1.0.0"}"#.to_vec(), Code::InvalidConfig),
        (environment("ADD"), config("2.0.0", &json!({})), Code::IncompatibleVersion),
        (environment("ADD"), config("0.2.0", &json!({})), Code::IncompatibleVersion),
        (environment("ADD"), config("1.0.0", &json!({"ipam": {"type": "host-local"}})), Code::UnsupportedField),
        (environment("ADD"), config("1.0.0", &json!({"prevResult": {"ips": []}})), Code::InvalidConfig),
        (environment("ADD"), config("1.0.0", &json!({"agentSocket": "run"})), Code::InvalidConfig),
        (environment("ADD"), config("1.0.0", &json!({"runtimeConfig": {"labels": 3}})), Code::InvalidConfig),
        (environment("CHECK"), config("1.0.0", &json!({})), Code::InvalidConfig),
        (environment("CHECK"), config("0.3.1", &json!({"prevResult": {}})), Code::IncompatibleVersion),
    ];
    for (environment, input, code) in cases {
        let error = parse(&environment, &input).unwrap_err();
        assert_eq!(error.code, code, "{environment:?} {}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn an_error_is_one_object_with_code_and_message() {
    let error = parse(&environment("ADD"), &config("2.0.0", &json!({}))).unwrap_err();
    assert_eq!(error.to_json(request::version_of(b"{\"cniVersion\":\"0.4.0\"}")), golden("error-version.json"));
}

#[test]
fn check_compares_with_what_add_answered() {
    for version in ["0.4.0", "1.0.0"] {
        let previous = golden(&format!("add-{version}.json"));
        answer::check(&previous, &workload()).unwrap();
        let mut moved = workload();
        moved.addresses = vec!["10.64.1.3".to_owned()];
        assert_eq!(answer::check(&previous, &moved).unwrap_err().code, Code::Differs);
        let mut other = workload();
        other.mac = "02:00:00:00:00:02".to_owned();
        assert_eq!(answer::check(&previous, &other).unwrap_err().code, Code::Differs);
    }
    assert_eq!(answer::check(&json!({}), &workload()).unwrap_err().code, Code::Differs);
}

/// An agent that knows the one workload, once it was added.
#[derive(Default)]
struct FakeAgent {
    added: Mutex<Option<AddWorkloadRequest>>,
    refuse: Option<Status>,
}

#[tonic::async_trait]
impl Local for FakeAgent {
    async fn add_workload(&self, request: GrpcRequest<AddWorkloadRequest>) -> Result<Response<Workload>, Status> {
        if let Some(status) = &self.refuse {
            return Err(status.clone());
        }
        *self.added.lock().unwrap() = Some(request.into_inner());
        Ok(Response::new(workload()))
    }

    async fn delete_workload(
        &self,
        request: GrpcRequest<DeleteWorkloadRequest>,
    ) -> Result<Response<DeleteWorkloadResponse>, Status> {
        assert_eq!(request.into_inner().id, "c0ffee:eth0");
        *self.added.lock().unwrap() = None;
        Ok(Response::new(DeleteWorkloadResponse {}))
    }

    async fn list_workloads(&self, _: GrpcRequest<ListWorkloadsRequest>) -> Result<Response<WorkloadList>, Status> {
        let workloads = self.added.lock().unwrap().iter().map(|_| workload()).collect();
        Ok(Response::new(WorkloadList { workloads }))
    }

    async fn get_agent_status(&self, _: GrpcRequest<GetAgentStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn leave(&self, _: GrpcRequest<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

async fn with_agent(agent: FakeAgent, talk: impl AsyncFnOnce(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let serve = tonic::transport::Server::builder().add_service(LocalServer::new(agent)).serve_with_incoming(incoming);
    tokio::select! {
        ended = serve => panic!("the server ended: {ended:?}"),
        () = talk(socket.to_str().unwrap()) => {}
    }
}

async fn ask(command: &str, socket: &str, more: Value) -> Result<Option<Value>, answer::CniError> {
    let mut more = more;
    more["agentSocket"] = json!(socket);
    perform(&parse(&environment(command), &config("1.0.0", &more)).unwrap()).await
}

#[tokio::test]
async fn add_check_and_delete_against_a_served_socket() {
    with_agent(FakeAgent::default(), async |socket| {
        let result = ask("ADD", socket, json!({})).await.unwrap().unwrap();
        assert_eq!(result, golden("add-1.0.0.json"));
        ask("CHECK", socket, json!({"prevResult": result})).await.unwrap();
        ask("DEL", socket, json!({})).await.unwrap();
        ask("DEL", socket, json!({})).await.unwrap();
        let gone = ask("CHECK", socket, json!({"prevResult": result})).await.unwrap_err();
        assert_eq!(gone.code, Code::UnknownContainer);
    })
    .await;
}

#[tokio::test]
async fn refusals_of_the_agent_become_cni_codes() {
    let cases = [
        (Status::unavailable("no API"), Code::TryAgainLater),
        (Status::invalid_argument("bad label"), Code::InvalidConfig),
        (Status::internal("kernel"), Code::Agent),
    ];
    for (status, code) in cases {
        let message = status.message().to_owned();
        with_agent(FakeAgent { refuse: Some(status), ..FakeAgent::default() }, async |socket| {
            let error = ask("ADD", socket, json!({})).await.unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, message.as_str()));
        })
        .await;
    }
}

#[tokio::test]
async fn no_agent_is_worth_another_try() {
    let error = ask("ADD", "/nonexistent/agent.sock", json!({})).await.unwrap_err();
    assert_eq!(error.code, Code::TryAgainLater);
}
