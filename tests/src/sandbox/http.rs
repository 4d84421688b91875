//! The least of HTTP that a test needs to speak to its servers: one request, one answer, nothing kept open.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body, as text.
    pub body: String,
}

impl Answer {
    /// Wants success; gives the body.
    ///
    /// # Panics
    /// With all that was answered.
    #[track_caller]
    pub fn well(self) -> String {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }
}

/// Sends a request to `authority` (`host:port`).
///
/// # Panics
/// When nobody answers, or no HTTP.
pub fn send(authority: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(authority).unwrap_or_else(|error| panic!("{authority}: {error}"));
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.unwrap_or_else(|| panic!("no HTTP: {answer}")), body: body.to_owned() }
}
