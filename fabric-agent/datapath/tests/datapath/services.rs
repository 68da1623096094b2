//! Services at the socket: a program in the node's cgroup connects to a service's address and reaches a backend behind the
//! other node, and believes that it talks to the service.

use std::{
    collections::BTreeSet,
    env,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use fabric_agent_datapath::rows::{Routing, Service, ServiceKey};

use crate::lab::{
    capable,
    two_nodes::{Node, TwoNodes},
};

/// What the client is to do, as `kind address`: set for the client alone, which is this very executable.
const TASK: &str = "FABRIC_DATAPATH_TEST_TASK";
const TCP: u8 = 6;
const UDP: u8 = 17;

fn frontend(v6: bool) -> SocketAddr {
    if v6 { "[fdfa:5e:1ce::1]:80" } else { "172.30.0.1:80" }.parse().unwrap()
}

/// The client's part; does nothing in an ordinary run.
#[test]
fn client() {
    let Ok(task) = env::var(TASK) else { return };
    let (kind, to) = task.split_once(' ').unwrap();
    let to: SocketAddr = to.parse().unwrap();
    println!("\nANSWER {}", ask(kind, to).unwrap_or_else(|e| format!("{:?}", e.kind())));
}

/// Who answered, and who the socket says that it was.
fn ask(kind: &str, to: SocketAddr) -> std::io::Result<String> {
    let patience = Some(Duration::from_secs(3));
    let mut buffer = [0; 100];
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let (read, peer) = match kind {
        "tcp" => {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
            stream.set_read_timeout(patience)?;
            stream.write_all(b"?")?;
            (stream.read(&mut buffer)?, stream.peer_addr()?)
        }
        "udp-connected" => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            socket.connect(to)?;
            socket.send(b"?")?;
            (socket.recv(&mut buffer)?, socket.peer_addr()?)
        }
        _ => {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(patience)?;
            socket.send_to(b"?", to)?;
            socket.recv_from(&mut buffer)?
        }
    };
    let answer = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
    Ok(format!("{answer} from {peer}"))
}

/// Runs the client in the endpoint's namespace, inside the node's cgroup or beside it.
fn client_says(node: &Node, inside: bool, kind: &str, to: SocketAddr) -> String {
    let exe = env::current_exe().unwrap();
    let line = format!("{} --exact services::client --nocapture --test-threads=1", exe.display());
    let line = if inside { node.cgroup.line(&line) } else { format!("exec {line}") };
    let output = node.endpoint.command("sh").args(["-c", &line]).env(TASK, format!("{kind} {to}")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(|l| l.strip_prefix("ANSWER ")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// Answers everyone with its port, until the executable ends.
fn serve(node: &Node, port: u16) {
    for address in node.endpoint_addresses() {
        let at = SocketAddr::new(address, port);
        let (listener, socket) = node.endpoint.enter(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0]);
                let _ = write!(stream, "{port}");
            }
        });
        std::thread::spawn(move || {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 10]) {
                let _ = socket.send_to(port.to_string().as_bytes(), from);
            }
        });
    }
}

fn set_service(lab: &TwoNodes, v6: bool, ports: &[u16]) {
    for protocol in [TCP, UDP] {
        let key = ServiceKey { frontend: frontend(v6), protocol };
        let backends = ports.iter().map(|&p| lab.to_b(v6, p)).collect();
        lab.a.datapath().maps().services.replace_service(&key, &Service { id: 5, backends }).unwrap();
    }
}

#[test]
fn a_socket_reaches_a_backend_and_sees_the_service() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    serve(&lab.b, 9_001);
    serve(&lab.b, 9_002);
    for v6 in [false, true] {
        let to = frontend(v6);
        set_service(&lab, v6, &[9_001]);
        for kind in ["tcp", "udp-connected", "udp"] {
            assert_eq!(client_says(&lab.a, true, kind, to), format!("9001 from {to}"), "{kind}");
        }
        set_service(&lab, v6, &[9_002]);
        for kind in ["tcp", "udp"] {
            assert_eq!(client_says(&lab.a, true, kind, to), format!("9002 from {to}"), "{kind} after the change");
        }
        let outside = client_says(&lab.a, false, "tcp", to);
        assert!(!outside.contains("from"), "a process outside of the node's cgroup: {outside}");
    }
}

#[test]
fn every_backend_gets_its_share() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    serve(&lab.b, 9_001);
    serve(&lab.b, 9_002);
    set_service(&lab, false, &[9_001, 9_002]);
    // One of two, thirty times the same: one run in 500 million.
    let answers: BTreeSet<String> = (0..30).map(|_| client_says(&lab.a, true, "tcp", frontend(false))).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    set_service(&lab, false, &[]);
    let begun = std::time::Instant::now();
    let answer = client_says(&lab.a, true, "tcp", frontend(false));
    assert!(["ConnectionRefused", "HostUnreachable", "PermissionDenied"].contains(&answer.as_str()), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}
