//! A client that costs little itself: one socket, blocking, kept open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// One connection.
pub struct Connection {
    socket: TcpStream,
}

/// A streamed reply, timed.
pub struct Timed {
    /// To the first event.
    pub first: Duration,
    /// To the end of the reply.
    pub whole: Duration,
    /// The reply, head included.
    pub bytes: Vec<u8>,
}

/// The bytes of a Messages request that names a script.
pub fn messages(body: &Value, script: &str) -> Vec<u8> {
    let extra = format!("anthropic-version: 2023-06-01\r\nbelljar-script: {script}\r\n");
    request("POST", "/v1/messages", &extra, &body.to_string())
}

fn request(method: &str, path: &str, extra: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: bench\r\ncontent-type: application/json\r\n{extra}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> super::Outcome<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { socket })
    }

    /// Sends a request and reads its chunked reply to the end.
    pub fn stream(&mut self, request: &[u8]) -> super::Outcome<Timed> {
        let begun = Instant::now();
        self.socket.write_all(request)?;
        let mut bytes = Vec::with_capacity(4096);
        let mut first = None;
        while !bytes.ends_with(b"\r\n0\r\n\r\n") {
            self.more(&mut bytes)?;
            if first.is_none() && find(&bytes, b"event: ").is_some() {
                first = Some(begun.elapsed());
            }
        }
        if !bytes.starts_with(b"HTTP/1.1 200") || find(&bytes, b"event: message_stop").is_none() {
            return Err(format!("unexpected reply: {}", String::from_utf8_lossy(&bytes)).into());
        }
        Ok(Timed { first: first.ok_or("no event")?, whole: begun.elapsed(), bytes })
    }

    /// `POST` with a JSON answer.
    pub fn post(&mut self, path: &str, body: &Value) -> super::Outcome<Value> {
        self.call(&request("POST", path, "", &body.to_string()))
    }

    /// `DELETE` with a JSON answer.
    pub fn delete(&mut self, path: &str) -> super::Outcome<Value> {
        self.call(&request("DELETE", path, "", ""))
    }

    fn call(&mut self, request: &[u8]) -> super::Outcome<Value> {
        self.socket.write_all(request)?;
        let mut bytes = Vec::with_capacity(4096);
        let head = loop {
            self.more(&mut bytes)?;
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
        let length: usize = length.trim().parse()?;
        while bytes.len() < head + length {
            self.more(&mut bytes)?;
        }
        match text.starts_with("http/1.1 200") {
            true => Ok(serde_json::from_slice(&bytes[head..])?),
            false => Err(String::from_utf8_lossy(&bytes).into_owned().into()),
        }
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> super::Outcome<()> {
        let mut chunk = [0_u8; 16 * 1024];
        match self.socket.read(&mut chunk)? {
            0 => Err("the server hung up".into()),
            read => {
                bytes.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
