//! Clients of a few lines: enough to see that a server is what it should be.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to where a URL points.
pub(crate) fn connect(url: &str) -> TcpStream {
    let rest = url.split_once("://").unwrap().1;
    let host = rest.split('/').next().unwrap().rsplit('@').next().unwrap();
    let stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("{url}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// What a new connection is answered first.
pub(crate) fn ask(url: &str, question: &str) -> String {
    let mut stream = connect(url);
    ask_on(&mut stream, question).unwrap()
}

/// The same on a connection that is there.
pub(crate) fn ask_on(stream: &mut TcpStream, question: &str) -> std::io::Result<String> {
    stream.write_all(question.as_bytes())?;
    let mut buffer = vec![0; 65536];
    let count = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Asserts that nothing is answered for a while: the time-out is the observation.
pub(crate) fn assert_silent(stream: &mut TcpStream, question: &str) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = ask_on(stream, question).expect_err("a frozen server is silent");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
}

/// The body of a GET.
pub(crate) fn get(url: &str, path: &str) -> String {
    let mut stream = connect(url);
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A session with PostgreSQL.
pub(crate) struct Sql(TcpStream);

impl Sql {
    pub(crate) fn connect(url: &str) -> Self {
        let mut stream = connect(url);
        let hello = b"\0\x03\0\0user\0wharf\0database\0wharf\0\0";
        stream.write_all(&u32::try_from(hello.len() + 4).unwrap().to_be_bytes()).unwrap();
        stream.write_all(hello).unwrap();
        let mut session = Self(stream);
        session.rows().unwrap();
        session
    }

    pub(crate) fn send(&mut self, statement: &str) {
        self.0.write_all(b"Q").unwrap();
        self.0.write_all(&u32::try_from(statement.len() + 5).unwrap().to_be_bytes()).unwrap();
        self.0.write_all(format!("{statement}\0").as_bytes()).unwrap();
    }

    /// The first column of the answer to what was sent.
    pub(crate) fn rows(&mut self) -> std::io::Result<Vec<String>> {
        let mut rows = Vec::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let mut body = vec![0; usize::try_from(length - 4).unwrap()];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return Ok(rows),
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                b'D' => {
                    let length = u32::from_be_bytes(body[2..6].try_into().unwrap());
                    let value = &body[6..6 + usize::try_from(length).unwrap()];
                    rows.push(String::from_utf8(value.to_vec()).unwrap());
                }
                _ => {}
            }
        }
    }

    pub(crate) fn ask(&mut self, statement: &str) -> Vec<String> {
        self.send(statement);
        self.rows().unwrap()
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}

/// One statement in a session of its own.
pub(crate) fn sql(url: &str, statement: &str) -> Vec<String> {
    Sql::connect(url).ask(statement)
}
