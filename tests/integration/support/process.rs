//! The binary as a process.

use super::{TIMEOUT, path, wait_for};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The binary with an empty environment, so that tests are independent of the machine.
pub fn tealight<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tealight"));
    command.env_clear().env("HF_HOME", "/nonexistent").current_dir(path(".")).args(args).stdin(Stdio::null());
    command
}

/// A running process, which is killed when this is dropped.
pub struct Process {
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

impl Process {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Capture::start(child.stdout.take().unwrap());
        let stderr = Capture::start(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Its stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        // `kill` is built into the shell, so no other package is needed.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends the process with SIGTERM, and returns its complete stdout and stderr. While it runs, the last lines may be missing.
    pub fn stop(&mut self) -> (String, String) {
        self.terminate();
        self.wait();
        (self.stdout(), self.stderr())
    }

    /// Waits for its end, and for the rest of its output.
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

/// Collects the output of a process.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
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

/// The result of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: String,
}

impl CommandOutput {
    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Stdout of a command that must have succeeded with nothing on stderr.
    #[track_caller]
    pub fn expect_success(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout
    }

    /// As [`CommandOutput::expect_success`], as text.
    #[track_caller]
    pub fn expect_text(self) -> String {
        String::from_utf8(self.expect_success()).unwrap()
    }

    /// As [`CommandOutput::expect_success`], parsed as JSON.
    #[track_caller]
    pub fn expect_json(self) -> serde_json::Value {
        let stdout = self.expect_success();
        serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{e} in {}", String::from_utf8_lossy(&stdout)))
    }

    /// The message of a command that must have failed, with one line on stderr and nothing on stdout.
    #[track_caller]
    pub fn expect_failure(self) -> String {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        assert_eq!(String::from_utf8_lossy(&self.stdout), "");
        let message = self.stderr.strip_prefix("tealight: ").unwrap_or_else(|| panic!("{}", self.stderr)).trim_end();
        assert!(!message.contains('\n') && !message.contains("panicked"), "{message}");
        message.to_string()
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> CommandOutput {
    run_with_input(command, "")
}

/// Runs a command to its end, with this input on stdin.
pub fn run_with_input(command: &mut Command, input: &str) -> CommandOutput {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_string());
    // Writing fails if the command ends before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output: Output = receiver.recv_timeout(TIMEOUT).expect("the command ends").unwrap();
    waiter.join().unwrap().unwrap();
    writer.join().unwrap();
    CommandOutput {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
