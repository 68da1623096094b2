//! What the tests share: namespaces on one link, engines in them, traffic between, waiting with a deadline.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fabric_wireguard::engine::user;
use fabric_wireguard::{
    AllowedIp, Config, Controller, DeviceSettings, DeviceStatus, InterfaceName, PeerConfig, PeerStatus, PrivateKey,
    PublicKey, UapiDevice,
};

/// The port that all engines listen on.
pub(crate) const PORT: u16 = 51871;
/// Where `wg` looks.
pub(crate) const SOCKET_DIR: &str = "/var/run/wireguard";
/// What a healthy machine never needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

const ENGINE_INTERFACE: &str = "ENGINE_INTERFACE";
const ENGINE_STATE: &str = "ENGINE_STATE";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Whether the tests can run here; tells when not.
pub(crate) fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !root {
        eprintln!("SKIPPED: needs root and /dev/net/tun");
    }
    root
}

/// Waits for a condition.
pub(crate) fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "timed out after {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// Runs a command and gives its output; it must succeed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn try_run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap())
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Namespaces joined by a bridge. Removed when dropped.
pub(crate) struct World {
    tag: String,
    count: u8,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let tag = format!("fw{:x}{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let world = Self { tag, count: 0, dir: tempfile::tempdir().unwrap() };
        run(&format!("ip netns add {}", world.switch()));
        run(&format!("ip -n {} link add br0 type bridge", world.switch()));
        run(&format!("ip -n {} link set br0 up", world.switch()));
        world
    }

    fn switch(&self) -> String {
        format!("{}s", self.tag)
    }

    /// A namespace with an address of each family on the link and a TUN device with one of each inside.
    pub(crate) fn node(&mut self) -> Node {
        self.count += 1;
        let number = self.count;
        let ns = format!("{}n{number}", self.tag);
        run(&format!("ip netns add {ns}"));
        run(&format!("ip -n {ns} link set lo up"));
        run(&format!("ip -n {ns} link add eth0 type veth peer name p{number} netns {}", self.switch()));
        run(&format!("ip -n {} link set p{number} master br0 up", self.switch()));
        let node = Node {
            interface: format!("{}w{number}", self.tag).parse().unwrap(),
            state: self.dir.path().join(format!("state{number}")),
            key: PrivateKey::generate().unwrap(),
            number,
            ns,
            engine: None,
        };
        run(&format!("ip -n {} addr add {}/24 dev eth0", node.ns, node.outer4()));
        run(&format!("ip -n {} addr add {}/64 dev eth0 nodad", node.ns, node.outer6()));
        run(&format!("ip -n {} link set eth0 up", node.ns));
        node
    }

    /// A node whose engine runs and has its key and port.
    pub(crate) fn ready_node(&mut self) -> Node {
        let mut node = self.node();
        node.make_device();
        node.start();
        node.set_up();
        node
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for number in 1..=self.count {
            try_run(&format!("ip netns del {}n{number}", self.tag));
        }
        try_run(&format!("ip netns del {}", self.switch()));
    }
}

/// One side.
pub(crate) struct Node {
    pub(crate) ns: String,
    pub(crate) interface: InterfaceName,
    pub(crate) state: PathBuf,
    pub(crate) key: PrivateKey,
    pub(crate) number: u8,
    engine: Option<Child>,
}

impl Node {
    pub(crate) fn outer4(&self) -> IpAddr {
        [192, 0, 2, self.number].into()
    }

    pub(crate) fn outer6(&self) -> IpAddr {
        format!("2001:db8::{}", self.number).parse().unwrap()
    }

    pub(crate) fn inner4(&self) -> IpAddr {
        [10, 9, 0, self.number].into()
    }

    pub(crate) fn inner6(&self) -> IpAddr {
        format!("fd09::{}", self.number).parse().unwrap()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.outer4(), PORT)
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// Makes the persistent device as the agent would, and gives it addresses.
    pub(crate) fn make_device(&self) {
        let name = self.interface.clone();
        self.inside(move || fabric_wireguard::tun::create_persistent(&name, 1420).unwrap());
        self.address_device();
    }

    pub(crate) fn address_device(&self) {
        let (ns, name) = (&self.ns, &self.interface);
        run(&format!("ip -n {ns} addr add {}/24 dev {name}", self.inner4()));
        run(&format!("ip -n {ns} addr add {}/64 dev {name} nodad", self.inner6()));
        run(&format!("ip -n {ns} link set {name} up"));
    }

    /// Starts the engine and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.spawn();
        wait_for("engine answers", DEADLINE, || self.try_status().is_some());
    }

    pub(crate) fn spawn(&mut self) {
        self.engine = Some(self.engine_command().stderr(Stdio::null()).spawn().unwrap());
    }

    /// Starts the engine with its log going to a file.
    pub(crate) fn spawn_logging(&mut self, filter: &str) -> PathBuf {
        let log = self.state.with_extension("log");
        let mut command = self.engine_command();
        self.engine = Some(command.env("ENGINE_LOG", filter).stderr(File::create(&log).unwrap()).spawn().unwrap());
        log
    }

    fn engine_command(&self) -> Command {
        let me = std::env::current_exe().unwrap();
        let mut command = self.command(me.to_str().unwrap());
        command.args(["world::engine_process", "--exact", "--nocapture"]);
        command.env(ENGINE_INTERFACE, self.interface.as_str()).env(ENGINE_STATE, &self.state).stdout(Stdio::null());
        command
    }

    /// Starts wireguard-go instead, which makes its own device.
    pub(crate) fn start_wireguard_go(&mut self) {
        let child = self
            .command("wireguard-go")
            .args(["-f", self.interface.as_str()])
            .env("WG_PROCESS_FOREGROUND", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.engine = Some(child);
        wait_for("wireguard-go answers", DEADLINE, || self.try_status().is_some());
        self.address_device();
        run(&format!("ip -n {} link set {} mtu 1420", self.ns, self.interface));
    }

    /// A command in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns, program]);
        command
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.engine.as_ref().unwrap().id().try_into().unwrap())
    }

    /// `kill -9`, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        let mut engine = self.engine.take().unwrap();
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    /// SIGTERM; says whether it ended well within the deadline.
    pub(crate) fn terminate(&mut self) -> bool {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.wait_end()
    }

    /// Waits for the engine to end by itself; says whether it ended well.
    pub(crate) fn wait_end(&mut self) -> bool {
        let mut engine = self.engine.take().unwrap();
        let mut status = None;
        wait_for("engine ends", DEADLINE, || {
            status = engine.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().success()
    }

    pub(crate) fn controller(&self) -> Controller {
        Controller::new(Box::new(UapiDevice::new(self.interface.clone(), Path::new(SOCKET_DIR))))
    }

    fn try_status(&self) -> Option<DeviceStatus> {
        self.controller().status().ok()
    }

    pub(crate) fn status(&self) -> DeviceStatus {
        self.controller().status().unwrap()
    }

    /// The status of the peer that `other` is.
    pub(crate) fn sees(&self, other: &Self) -> PeerStatus {
        self.status().peers[&other.public_key()].clone()
    }

    /// Sets key and port.
    pub(crate) fn set_up(&self) {
        let settings = DeviceSettings { private_key: Some(self.key.clone()), listen_port: Some(PORT), fwmark: None };
        self.controller().configure(&settings).unwrap();
    }

    /// This node as others configure it: by its outer IPv4 address.
    pub(crate) fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            endpoint: Some(self.endpoint()),
            allowed_ips: BTreeSet::from([AllowedIp::host(self.inner4()), AllowedIp::host(self.inner6())]),
            ..PeerConfig::new(self.public_key())
        }
    }

    /// As above, but nobody knows where it is.
    pub(crate) fn as_unknown_peer(&self) -> PeerConfig {
        PeerConfig { endpoint: None, ..self.as_peer() }
    }

    pub(crate) fn apply(&self, peers: &[PeerConfig]) {
        self.controller().apply(peers).unwrap();
    }

    /// Runs a closure in the namespace, on a thread of its own.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let path = format!("/var/run/netns/{}", self.ns);
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(path).unwrap();
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                body()
            });
            thread.join().unwrap()
        })
    }

    /// A UDP socket in the namespace that gives up waiting after the deadline.
    pub(crate) fn udp(&self, address: IpAddr, port: u16) -> UdpSocket {
        let socket = self.inside(|| UdpSocket::bind((address, port)).unwrap());
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    /// One echo request.
    pub(crate) fn try_ping(&self, to: IpAddr) -> bool {
        try_run(&format!("ip netns exec {} ping -n -c 1 -W 1 {to}", self.ns))
    }

    /// Pings until there is an answer, and says how long it took.
    pub(crate) fn ping(&self, to: IpAddr) -> Duration {
        wait_for(&format!("{} reaches {to}", self.ns), DEADLINE, || self.try_ping(to))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.engine.is_some() {
            self.kill();
        }
        let _ = std::fs::remove_file(Path::new(SOCKET_DIR).join(format!("{}.sock", self.interface)));
    }
}

/// The engine's own process: this executable starts itself with this test alone, so that what is tested is never older
/// than the test. In an ordinary run it has nothing to do.
#[test]
fn engine_process() {
    let (Some(interface), Some(state)) = (std::env::var_os(ENGINE_INTERFACE), std::env::var_os(ENGINE_STATE)) else {
        return;
    };
    let filter = tracing_subscriber::EnvFilter::from_env("ENGINE_LOG");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let config = Config {
        interface: interface.to_str().unwrap().parse().unwrap(),
        socket_dir: SOCKET_DIR.into(),
        state_file: state.into(),
        fwmark: None,
    };
    user::run(&config).unwrap();
}

/// Two nodes that know each other, both by address, with a session.
pub(crate) fn connected_pair(world: &mut World) -> (Node, Node) {
    let (a, b) = (world.ready_node(), world.ready_node());
    b.apply(&[a.as_peer()]);
    a.apply(&[b.as_peer()]);
    a.ping(b.inner4());
    (a, b)
}

/// Sends `bytes` over TCP and checks that the same come back.
pub(crate) fn tcp_echo(from: &Node, to: &Node, address: IpAddr, bytes: &[u8]) {
    let listener = to.inside(|| TcpListener::bind((address, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let mut buffer = vec![0; 64 << 10];
            loop {
                let len = stream.read(&mut buffer).unwrap();
                if len == 0 {
                    return;
                }
                writer.write_all(&buffer[..len]).unwrap();
            }
        });
        let mut stream = from.inside(|| TcpStream::connect_timeout(&target, DEADLINE).unwrap());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{} bytes sent, {} came back", bytes.len(), back.len());
    });
}

/// Sends one datagram and checks that it arrives whole. Lost ones are sent again.
pub(crate) fn udp_transfer(from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) {
    let target = to.local_addr().unwrap();
    to.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    wait_for(&format!("{} bytes over UDP", bytes.len()), DEADLINE, || {
        from.send_to(bytes, target).unwrap();
        to.recv(&mut buffer).is_ok_and(|len| buffer[..len] == *bytes)
    });
}
