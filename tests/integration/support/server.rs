//! `tealight serve` on a free port.

use super::http::{Client, Message};
use super::process::{Process, tealight};
use super::wait_for;
use serde_json::Value;
use std::net::SocketAddr;

/// A running server.
pub struct Server {
    /// Its address.
    pub address: SocketAddr,
    /// The process of the server.
    pub process: Process,
}

impl Server {
    /// Starts a server with these environment variables.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let mut command = tealight(["serve", "--port", "0"]);
        command.envs(variables.iter().copied());
        let mut process = Process::start(command);
        let address = wait_for("the server's address", || {
            assert!(process.is_running(), "the server ended: {}", process.stderr());
            let log = process.stderr();
            log.split_once("listening on http://")?.1.split_once('\n')?.0.parse().ok()
        });
        Self { address, process }
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends a POST request on a new connection.
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Message {
        self.post_with(path, &[("content-type", "application/json")], body)
    }

    /// Sends a POST request with headers on a new connection.
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Message {
        self.connect().call("POST", path, headers, body)
    }

    /// Sends a GET request on a new connection.
    pub fn get(&self, path: &str) -> Message {
        self.connect().call("GET", path, &[], "")
    }

    /// The JSON of the response to a POST request, which must succeed.
    #[track_caller]
    pub fn expect_success(&self, path: &str, body: impl ToString) -> Value {
        let response = self.post(path, body.to_string());
        assert_eq!(response.status(), 200, "{}", response.text());
        response.json()
    }

    /// Checks that the server still works.
    #[track_caller]
    pub fn assert_serving(&self) {
        let response = self.expect_success("/v1/embeddings", r#"{"input":"still there?"}"#);
        assert!(response["data"][0]["embedding"].is_array());
    }

    /// Stops the server by SIGTERM; returns its log.
    pub fn stop(mut self) -> String {
        self.process.terminate();
        let status = self.process.wait();
        assert_eq!(status.code(), Some(0), "{}", self.process.stderr());
        assert_eq!(self.process.stdout(), "", "logs belong on stderr");
        self.process.stderr()
    }
}
