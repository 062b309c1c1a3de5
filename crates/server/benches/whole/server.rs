//! The server under measurement: the release binary, on a free port, with a data directory that goes with it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server; dropping it ends it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

/// What a process has used.
#[derive(Clone, Copy)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// One tick of `/proc/<pid>/stat`; 100 a second on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

impl Server {
    /// Starts it, and waits until it says where it serves.
    pub fn start() -> super::Outcome<Self> {
        let data = tempfile::tempdir()?;
        let scripts = data.path().join("scripts");
        std::fs::create_dir(&scripts)?;
        for (name, script) in scripts_text() {
            std::fs::write(scripts.join(name), script)?;
        }
        let config = data.path().join("belljar.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n[[upstream]]\nname = \"bench\"\nkind = \"scripted\"\nscripts_dir = {:?}\n",
            data.path().join("data"),
            scripts
        );
        std::fs::write(&config, text)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_belljar"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("BELLJAR_LOG", "warn")
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        let address = loop {
            let Some(line) = lines.next().transpose()? else {
                return Err(format!("the server did not start: {said}").into());
            };
            if let Some((_, address)) = line.split_once("serves http://") {
                break address.trim().parse()?;
            }
            said.push_str(&line);
        };
        // Keep reading, so that the server never waits for its log.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address, _data: data })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has used so far.
    pub fn usage(&self) -> super::Outcome<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').ok_or("stat")?.1.split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok()).ok_or("stat");
        let cpu = TICK * (field(11)? + field(12)?);
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("VmRSS")?;
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse()?;
        Ok(Usage { cpu, resident_bytes: kibibytes * 1024 })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // By pid, and politely, so that its containers go with it.
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn scripts_text() -> [(&'static str, String); 3] {
    let text = |text: &str| format!(r#"{{"steps":[{{"content":[{{"type":"text","text":"{text}"}}]}}]}}"#);
    let slow = format!(
        r#"{{"steps":[{{"content":[{{"type":"text","text":"{}"}}],"chunk_bytes":20,"delay_ms":10}}]}}"#,
        "four words and more ".repeat(100)
    );
    let call = r#"{"type":"tool_use","name":"bash_code_execution","input":{"command":"echo hi"}}"#;
    let bash = format!(r#"{{"steps":[{{"content":[{call}]}},{{"content":[{{"type":"text","text":"done"}}]}}]}}"#);
    [("short.json", text("Hello there.")), ("slow.json", slow), ("bash.json", bash)]
}
