//! The real binary as a process.

use super::{PATIENCE, path, wait_for};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The binary, which sees nothing of this process's environment: tests hold on every machine.
pub fn tealight<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tealight"));
    command.env_clear().env("HF_HOME", "/nonexistent").current_dir(path(".")).args(args).stdin(Stdio::null());
    command
}

/// A process that is watched while it runs, and killed when it goes out of scope.
pub struct Process {
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

impl Process {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Capture::of(child.stdout.take().unwrap());
        let stderr = Capture::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        // The shell has `kill` built in, so that no package is needed for it.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and for everything that it has written.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the end of a process", || self.child.try_wait().unwrap());
        self.stdout.finish();
        self.stderr.finish();
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects what a process writes.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(vec![]));
        let into = bytes.clone();
        let thread = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                into.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Self { bytes, thread: Some(thread) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn finish(&mut self) {
        self.thread.take().into_iter().for_each(|t| t.join().unwrap());
    }
}

/// What a command did that has ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Done {
    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Stdout, which must be all that there is: done, and nothing to complain about.
    #[track_caller]
    pub fn good(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout
    }

    /// The same as text.
    #[track_caller]
    pub fn good_text(self) -> String {
        String::from_utf8(self.good()).unwrap()
    }

    /// The same as JSON.
    #[track_caller]
    pub fn good_json(self) -> serde_json::Value {
        let stdout = self.good();
        serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{e} in {}", String::from_utf8_lossy(&stdout)))
    }

    /// The message of a command that failed, in one line, and wrote no result.
    #[track_caller]
    pub fn failure(self) -> String {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        assert_eq!(String::from_utf8_lossy(&self.stdout), "");
        let message = self.stderr.strip_prefix("tealight: ").unwrap_or_else(|| panic!("{}", self.stderr)).trim_end();
        assert!(!message.contains('\n') && !message.contains("panicked"), "{message}");
        message.to_string()
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Done {
    run_with_input(command, "")
}

/// Runs a command to its end, which reads this from stdin.
pub fn run_with_input(command: &mut Command, input: &str) -> Done {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_string());
    // A command that stops early reads no further, which is its right.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output: Output = receiver.recv_timeout(PATIENCE).expect("the command ends").unwrap();
    waiter.join().unwrap().unwrap();
    writer.join().unwrap();
    Done {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
