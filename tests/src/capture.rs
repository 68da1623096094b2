//! Captures on a namespace's devices, decoded by tshark.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fabric_cli::lab::{Lab, Place, Process, run, wait_until};
use serde_json::Value;

/// A running capture into a file.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture on a device of a namespace, and waits until it does.
    ///
    /// # Errors
    /// When tcpdump cannot be started.
    pub fn start(lab: &Lab, namespace: &str, device: &str, filter: &str) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = lab.dir().join(format!("capture-{number}.pcap"));
        let log = lab.dir().join(format!("capture-{number}.log"));
        let cgroup = lab.cgroup().join("capture");
        let place = Place { namespace, cgroup: &cgroup, log: &log, env: &[] };
        let path = file.display().to_string();
        let args =
            ["-i", device, "-n", "-U", "-s", "0", "-B", "16384", "--immediate-mode", "-Z", "root", "-w", &path, filter];
        let process = Process::start(&place, "tcpdump", &args)?;
        wait_until(Duration::from_secs(10), "tcpdump listens", || {
            Ok(process.output()?.contains("listening on").then_some(()))
        })?;
        Ok(Self { process, file })
    }

    /// How many packets of the file match a display filter, as of now.
    ///
    /// # Errors
    /// When tshark cannot read it.
    pub fn count(&self, display_filter: &str) -> Result<usize> {
        Ok(self.fields(display_filter, &["frame.number"])?.len())
    }

    /// The values of fields, a row per matching packet.
    ///
    /// # Errors
    /// When tshark cannot read the file.
    pub fn fields(&self, display_filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let file = self.file.display().to_string();
        let mut args = vec!["-n", "-r", &file, "-d", "udp.port==8472,vxlan", "-d", "udp.port==6081,geneve"];
        args.extend(["-Y", display_filter, "-T", "fields", "-E", "separator=\t", "-E", "occurrence=a"]);
        for field in fields {
            args.extend(["-e", *field]);
        }
        let out = run("tshark", &args)?;
        // A file that is still written may end within a packet: that is no error of the capture.
        let said = if out.code == 0 || out.stderr.contains("cut short") { out.stdout } else { out.into_result()? };
        Ok(said.lines().map(|l| l.split('\t').map(str::to_owned).collect()).collect())
    }

    /// A readable list of matching packets, for messages.
    ///
    /// # Errors
    /// When tshark cannot read the file.
    pub fn describe(&self, display_filter: &str) -> Result<String> {
        let file = self.file.display().to_string();
        let out = run("tshark", &["-n", "-r", &file, "-Y", display_filter])?;
        Ok(out.stdout.lines().take(20).collect::<Vec<_>>().join("\n"))
    }

    /// Ends the capture; what the kernel still held is in the file.
    ///
    /// # Errors
    /// When tcpdump cannot be stopped.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(10))
    }

    /// All packets as tshark's JSON, for exact looks.
    ///
    /// # Errors
    /// When tshark cannot read the file.
    pub fn json(&self, display_filter: &str) -> Result<Value> {
        let file = self.file.display().to_string();
        let out = run("tshark", &["-n", "-r", &file, "-Y", display_filter, "-T", "json"])?.into_result()?;
        serde_json::from_str(&out).context("tshark's JSON")
    }
}
