//! A laboratory of network namespaces, control groups and pin folders that takes itself down.
//!
//! Names carry the process's number, so that runs do not meet; what a killed run left behind is swept by the next.

pub(crate) mod traffic;
pub(crate) mod two_nodes;
pub(crate) mod wireguard;

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use fabric_agent_datapath::{IfIndex, cleanup, probe};
use nix::sched::{CloneFlags, setns};

/// What every name begins with.
const PREFIX: &str = "fdp";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Says so and answers `false` where the machine cannot run these tests.
pub(crate) fn capable() -> bool {
    match probe::require() {
        Ok(()) => true,
        Err(missing) => {
            eprintln!("SKIPPED: {missing}");
            false
        }
    }
}

/// A name that no other run and no other test uses.
pub(crate) fn unique(what: &str) -> String {
    sweep();
    format!("{PREFIX}-{}-{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The number of the process that made a name, if it is one of ours and the process is gone.
fn is_left_behind(name: &str) -> bool {
    let mut parts = name.split('-');
    let pid = (parts.next() == Some(PREFIX)).then(|| parts.next()).flatten();
    pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes what runs that were killed left behind.
fn sweep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for name in names(Path::new("/run/netns")).iter().filter(|n| is_left_behind(n)) {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
        for name in names(Path::new("/sys/fs/bpf")).iter().filter(|n| is_left_behind(n)) {
            let _ = cleanup(&Path::new("/sys/fs/bpf").join(name));
        }
        let Some(mount) = probe::cgroup2_mount() else { return };
        for name in names(&mount).iter().filter(|n| is_left_behind(n)) {
            let _ = fs::remove_dir(mount.join(name));
        }
    });
}

/// Runs a program to its end and gives what it printed; panics with its words when it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    checked(&format!("{program} {}", args.join(" ")), &output)
}

fn checked(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// A network namespace; gone when dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(what: &str) -> Self {
        let name = unique(what);
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip …` inside.
    pub(crate) fn ip(&self, words: &str) -> String {
        let mut args = vec!["-n", &self.name];
        args.extend(words.split_whitespace());
        run("ip", &args)
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let value = value.to_owned();
        self.enter(move || fs::write(&path, value).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that runs inside, with this process's mounts.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs inside to the end and gives what it printed; panics when it fails.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        checked(line, &output)
    }

    /// Runs inside to the end, whatever it ends with.
    pub(crate) fn try_run(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).output().unwrap()
    }

    /// Starts a program that is killed when dropped.
    pub(crate) fn start(&self, line: &str) -> Running {
        let child = self
            .command("sh")
            .args(["-c", &format!("exec {line}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child))
    }

    /// Does something on a thread that is inside.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(crate) fn index(&self, device: &str) -> IfIndex {
        let text = self.ip(&format!("-o link show dev {device}"));
        let number = text.split(':').next().unwrap().trim();
        IfIndex::new(number.parse().unwrap()).unwrap()
    }

    pub(crate) fn mac(&self, device: &str) -> [u8; 6] {
        let text = self.ip(&format!("-o link show dev {device}"));
        let mac = text.split("link/ether ").nth(1).unwrap().split_whitespace().next().unwrap();
        let bytes: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Running(Option<Child>);

impl Running {
    /// Waits for its end and gives what it printed.
    pub(crate) fn output(mut self) -> String {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A folder of pins; emptied and gone when dropped.
#[derive(Debug)]
pub(crate) struct PinDir(pub(crate) PathBuf);

impl PinDir {
    pub(crate) fn new(what: &str) -> Self {
        Self(Path::new("/sys/fs/bpf").join(unique(what)))
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        if let Err(e) = cleanup(&self.0) {
            eprintln!("left behind: {}: {e}", self.0.display());
        }
    }
}

/// A control group of version 2; gone when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn new(what: &str) -> Self {
        let path = probe::cgroup2_mount().unwrap().join(unique(what));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A shell line that runs in this group.
    pub(crate) fn line(&self, line: &str) -> String {
        format!("echo $$ > {}/cgroup.procs && exec {line}", self.0.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Members that were just killed leave a moment later.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A pair of devices, one in each namespace, up.
pub(crate) fn pair(a: (&Namespace, &str), b: (&Namespace, &str), mtu: u32) {
    run(
        "ip",
        &[
            "-n",
            &a.0.name,
            "link",
            "add",
            a.1,
            "mtu",
            &mtu.to_string(),
            "type",
            "veth",
            "peer",
            "name",
            b.1,
            "mtu",
            &mtu.to_string(),
            "netns",
            &b.0.name,
        ],
    );
    a.0.ip(&format!("link set {} up", a.1));
    b.0.ip(&format!("link set {} up", b.1));
}

/// `/32` or `/128`.
pub(crate) fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
