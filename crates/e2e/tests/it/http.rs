//! HTTP by hand: exact bytes out, one answer in. A real client would refuse to send most of what is tried here.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header that may come once at most.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {self:?}");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as an untyped tree.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).unwrap_or_else(|error| panic!("no connection to {to}: {error}")))
    }

    /// A connection from another address of this machine.
    pub(crate) fn open_from(from: IpAddr, to: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(from, 0)).unwrap();
            socket.connect(to).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. False if the other side did not want them all: it may have answered before the end.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// Sends bytes one by one, each after a pause, until there is an answer.
    pub(crate) fn drip(&mut self, bytes: &[u8], pause: Duration) {
        self.stream.set_read_timeout(Some(pause)).unwrap();
        let mut buffer = [0; 1024];
        for byte in bytes {
            let open = self.send(std::slice::from_ref(byte));
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    break;
                }
                Err(_) if open => {}
                Err(_) => break,
            }
        }
        self.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        // It may be closed by now.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer; `None` if the connection is closed without one. `HEAD` has no body to wait for.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        self.read_answer(false)
    }

    /// The next answer, to a request with the method HEAD.
    pub(crate) fn answer_to_head(&mut self) -> Option<Answer> {
        self.read_answer(true)
    }

    fn read_answer(&mut self, to_head: bool) -> Option<Answer> {
        let end = loop {
            match self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None if self.read_more() => {}
                None if self.received.is_empty() => return None,
                None => panic!("half an answer: {:?}", String::from_utf8_lossy(&self.received)),
            }
        };
        let head = String::from_utf8(self.received.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        assert!(status_line.starts_with("HTTP/1."), "{status_line:?}");
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no header"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if !to_head && !matches!(status, 100..=199 | 204 | 304) {
            answer.body = self.read_body(&answer);
        }
        Some(answer)
    }

    fn read_body(&mut self, answer: &Answer) -> Vec<u8> {
        if answer.header("transfer-encoding") == Some("chunked") {
            return self.read_chunks();
        }
        if let Some(length) = answer.header("content-length") {
            return self.take(length.parse().unwrap());
        }
        while self.read_more() {}
        std::mem::take(&mut self.received)
    }

    fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match self.received.windows(2).position(|two| two == b"\r\n") {
                    Some(end) => break end,
                    None => assert!(self.read_more(), "the answer ends within a chunk"),
                }
            };
            let line = String::from_utf8(self.take(end + 2)).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let chunk = self.take(size + 2);
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return body;
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.read_more(), "the answer ends early");
        }
        self.received.drain(..length).collect()
    }

    /// Reads what has come; false at the end. A reset is an end: it is how a server closes on unread bytes.
    fn read_more(&mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer within {TIMEOUT:?}: {error}"),
        }
    }
}

/// Sends one request over a connection of its own; `None` if there is no answer.
pub(crate) fn exchange(to: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut connection = Connection::open(to);
    connection.send(request);
    connection.answer()
}

/// A GET with further header lines (each ending in CRLF).
pub(crate) fn get(to: SocketAddr, target: &str, headers: &str) -> Answer {
    exchange(to, format!("GET {target} HTTP/1.1\r\nHost: wharf\r\nConnection: close\r\n{headers}\r\n").as_bytes())
        .unwrap_or_else(|| panic!("no answer to GET {target}"))
}

/// A complete POST.
pub(crate) fn post(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: wharf\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
