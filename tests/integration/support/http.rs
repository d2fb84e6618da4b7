//! A minimal HTTP/1.1 client and mock server, with control over every byte, also for malformed requests.

use super::TIMEOUT;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request or a response.
#[derive(Debug, Clone)]
pub struct Message {
    /// `POST /embed HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub start_line: String,
    /// In order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without chunk headers.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads a message; none at the end of the connection.
    pub fn read(from: &mut impl BufRead) -> Result<Option<Self>> {
        let start_line = line(from)?;
        if start_line.is_empty() {
            return Ok(None);
        }
        let mut this = Self { start_line, headers: headers(from)?, body: vec![] };
        if this.header("transfer-encoding") == Some("chunked") {
            this.body = chunks(from)?;
        } else if let Some(length) = this.header("content-length") {
            this.body = vec![0; length.parse().map_err(Error::other)?];
            from.read_exact(&mut this.body)?;
        }
        Ok(Some(this))
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start_line.split(' ').next().unwrap_or_default()
    }

    /// The path of a request.
    pub fn path(&self) -> &str {
        self.start_line.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.path().parse().unwrap_or_else(|_| panic!("no status in {:?}", self.start_line))
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(&self.body)))
    }
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_string())
}

fn headers(from: &mut impl BufRead) -> Result<Vec<(String, String)>> {
    let mut headers = vec![];
    loop {
        let line = line(from)?;
        match line.split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_string())),
            None => return Ok(headers),
        }
    }
}

fn chunks(from: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut body = vec![];
    loop {
        let size = usize::from_str_radix(&line(from)?, 16).map_err(Error::other)?;
        if size == 0 {
            // Trailers, which are ignored.
            headers(from)?;
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        line(from)?;
    }
}

/// A connection to a server.
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(BufReader::new(socket))
    }

    /// Sends bytes unchanged.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Sends bytes to a server that may close the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Reads a response.
    pub fn read_response(&mut self) -> Message {
        Message::read(&mut self.0).unwrap().expect("a response, not the end of the connection")
    }

    /// Closes the sending side of the connection.
    pub fn finish_sending(&mut self) {
        self.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        self.0.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// Sends a request and reads the response.
    pub fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Message {
        self.send(request(method, path, headers, body));
        self.read_response()
    }
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The response of a mock.
#[derive(Debug, Clone, Default)]
pub struct MockResponse {
    /// HTTP status.
    pub status: u16,
    /// `Content-Length` is added unless it is set.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// Closes the connection after this number of bytes of the body.
    pub close_after: Option<usize>,
}

impl MockResponse {
    /// A response with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    fn send(&self, to: &mut impl Write) -> Result<()> {
        let mut head = format!("HTTP/1.1 {} Mock\r\n", self.status);
        if self.headers.iter().all(|(name, _)| name != "content-length") {
            let _ = write!(head, "content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let body = &self.body[..self.close_after.unwrap_or(self.body.len()).min(self.body.len())];
        to.write_all(&[head.as_bytes(), b"\r\n", body].concat())?;
        match self.close_after {
            None => Ok(()),
            Some(_) => Err(ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// A server on a free port that responds with the result of a function and records the requests.
pub struct Mock {
    /// Its address.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl Mock {
    /// Starts a server that runs until the test process ends.
    pub fn start(respond: impl Fn(&Message) -> MockResponse + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (requests, respond) = (this.requests.clone(), Arc::new(respond));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (requests, respond) = (requests.clone(), respond.clone());
                std::thread::spawn(move || serve(socket, &requests, &*respond));
            }
        });
        this
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }
}

/// Responds to the requests of a connection until the client closes it or a response requires it.
fn serve(
    mut socket: TcpStream,
    requests: &Mutex<Vec<Message>>,
    respond: &dyn Fn(&Message) -> MockResponse,
) -> Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    while let Some(request) = Message::read(&mut reader)? {
        requests.lock().unwrap().push(request.clone());
        respond(&request).send(&mut socket)?;
    }
    Ok(())
}

/// A local address on which nothing listens.
pub fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
