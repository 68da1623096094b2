//! Real traffic between namespaces, by sockets that are opened inside them; and captures of what crosses a wire.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Stdio},
    time::Duration,
};

use super::Namespace;

const CONNECT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(10);

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All bytes arrived, and the answer came back.
    Whole,
    /// No connection came to be.
    NotConnected,
}

/// The bytes of a transfer: no two neighbouring segments are alike, so that a segment lost or doubled shows.
fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i ^ (i >> 8) ^ (i >> 16)).to_le_bytes()[0]).collect()
}

/// Sends `bytes` from one namespace to an address in another over TCP, and as many back.
pub(crate) fn tcp(client: &Namespace, server: &Namespace, to: SocketAddr, bytes: usize) -> Outcome {
    tcp_as_seen(client, server, to, bytes).0
}

/// The same; and the address that the server saw.
pub(crate) fn tcp_as_seen(
    client: &Namespace,
    server: &Namespace,
    to: SocketAddr,
    bytes: usize,
) -> (Outcome, Option<IpAddr>) {
    let listener = server.enter(|| TcpListener::bind(to).unwrap());
    let sent = payload(bytes);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            listener.set_nonblocking(true).unwrap();
            let deadline = std::time::Instant::now() + CONNECT + Duration::from_millis(500);
            let mut stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if std::time::Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                    Err(_) => return None,
                }
            };
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(SILENCE)).unwrap();
            let mut got = vec![0; bytes];
            stream.read_exact(&mut got).unwrap();
            assert!(got == sent, "the {bytes} bytes to {to} arrived changed");
            stream.write_all(&got).unwrap();
            Some(stream.peer_addr().unwrap().ip())
        });
        let stream = client.enter(|| TcpStream::connect_timeout(&to, CONNECT));
        let outcome = match stream {
            Err(_) => Outcome::NotConnected,
            Ok(mut stream) => {
                stream.set_read_timeout(Some(SILENCE)).unwrap();
                stream.set_write_timeout(Some(SILENCE)).unwrap();
                stream.write_all(&sent).unwrap_or_else(|e| panic!("send {bytes} bytes to {to}: {e}"));
                let mut back = vec![0; bytes];
                stream.read_exact(&mut back).unwrap_or_else(|e| panic!("{bytes} bytes back from {to}: {e}"));
                assert!(back == sent, "the {bytes} bytes back from {to} arrived changed");
                Outcome::Whole
            }
        };
        (outcome, echo.join().unwrap())
    })
}

/// Sends one datagram and waits for its echo; says whether it came.
pub(crate) fn udp(client: &Namespace, server: &Namespace, to: SocketAddr, bytes: usize) -> bool {
    let listener = server.enter(|| UdpSocket::bind(to).unwrap());
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = client.enter(|| {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        socket
    });
    let sent = payload(bytes);
    for end in [&listener, &socket] {
        end.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    if socket.send(&sent).is_err() {
        return false;
    }
    let mut buffer = vec![0; 65_536];
    let Ok((got, from)) = listener.recv_from(&mut buffer) else { return false };
    assert!(buffer.get(..got) == Some(&sent), "the datagram to {to} arrived changed");
    listener.send_to(&sent, from).unwrap();
    socket.recv(&mut buffer).is_ok_and(|n| n == bytes)
}

/// Three echo requests; says how many came back.
pub(crate) fn ping(from: &Namespace, to: IpAddr, bytes: usize) -> usize {
    let output = from.try_run(&format!("ping -n -c 3 -i 0.1 -W 1 -s {bytes} {to}"));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|l| l.contains("bytes from")).count()
}

/// What crosses a device, recorded.
#[derive(Debug)]
pub(crate) struct Capture {
    child: Child,
    dir: tempfile::TempDir,
}

impl Capture {
    /// Begins; returns once packets are seen.
    pub(crate) fn start(namespace: &Namespace, device: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("capture.pcap");
        let mut child = namespace
            .command("tcpdump")
            .args(["-i", device, "-Z", "root", "-U", "--immediate-mode", "-s", "0", "-w"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
        assert!(said.into_iter().any(|line| line.contains("listening on")), "tcpdump on {device} does not listen");
        Self { child, dir }
    }

    /// Ends; gives the fields of the packets that match, one line each, separated by tabs.
    pub(crate) fn finish(mut self, filter: &str, fields: &[&str]) -> Vec<String> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        let mut command = std::process::Command::new("tshark");
        command.arg("-r").arg(self.dir.path().join("capture.pcap"));
        command.args(["-n", "-d", "udp.port==8472,vxlan", "-T", "fields", "-Y", filter]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.stderr(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
