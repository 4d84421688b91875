//! A process of a test: in a group of its own, its words in a file, dead when the test is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait_until;

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Dies at once, as of a power failure.
    Kill,
    /// Stands still, as of a long pause of the machine.
    Stop,
    /// Goes on.
    Cont,
    /// Is asked to end.
    Term,
    /// Ctrl-C.
    Int,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
            Self::Term => "TERM",
            Self::Int => "INT",
        }
    }
}

/// Waits for a word or for the end of who would say it; in the second case kills the group $1, whose last files may still
/// come while the folder $2 is removed.
const GUARD: &str = "read -r line && exit
kill -s KILL -- -\"$1\"
[ -z \"$2\" ] && exit
for try in 1 2 3 4 5; do rm -rf -- \"$2\" && exit; sleep 0.2; done";

/// A running process, and all that it starts.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: std::process::Child,
    /// Kills the group when this test process is gone without having said so, however it died.
    guard: std::process::Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says on stdout and stderr goes to the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: Command, log: PathBuf) -> Self {
        Self::guarded(name, command, log, None)
    }

    /// Starts `command`, which keeps its data in `folder`: that goes too when this test process is gone without having said
    /// so.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_on(name: &str, command: Command, log: PathBuf, folder: &Path) -> Self {
        Self::guarded(name, command, log, Some(folder))
    }

    fn guarded(name: &str, mut command: Command, log: PathBuf, folder: Option<&Path>) -> Self {
        use std::os::unix::process::CommandExt;
        let out = File::create(&log).expect("a log file");
        let err = out.try_clone().expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(child.id().to_string()).args(folder);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guard = guard.spawn().expect("there is a shell");
        Self { name: name.to_owned(), child, guard, log }
    }

    /// Its name within the test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file with what it said.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it runs, or stands still.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends `signal` to its group; nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        // Its number is its own until it was waited for.
        if self.is_alive() {
            let group = format!("-{}", self.child.id());
            let told =
                Command::new("sh").args(["-c", "kill -s \"$1\" -- \"$2\"", "kill", signal.name(), &group]).status();
            assert!(told.is_ok_and(|told| told.success()), "{} cannot be told {signal:?}", self.name);
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::Kill);
        self.child.wait().expect("a child can be waited for");
    }

    /// How it ended; waits for that.
    ///
    /// # Panics
    /// When it has not ended `within` the time.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let name = self.name.clone();
        wait_until(&format!("the end of {name}"), within, async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_alive() {
            let group = format!("-{}", self.child.id());
            // The shell's own `kill`, because not every system has the program.
            let _ = Command::new("sh").args(["-c", "kill -s KILL -- \"$1\"", "kill", &group]).status();
            let _ = self.child.wait();
        }
        if let Some(mut line) = self.guard.stdin.take() {
            use std::io::Write;
            let _ = line.write_all(b"done\n");
        }
        let _ = self.guard.wait();
    }
}
