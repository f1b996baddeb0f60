//! As much of HTTP/1.1 as scrapers of metrics and viewers of the page need: GET, one answer, and goodbye
//! (RFC 9112).
//!
//! Nobody is waited for. A client has some seconds for its request and for the answer; when there are
//! too many, the oldest gives way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::is_timeout;
use crate::port::{Clients, PeerError};

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at a time, unless something else is said.
const MOST_CLIENTS: usize = 16;
/// A longer request is refused, bytes.
const LONGEST_REQUEST: usize = 8 << 10;
/// New clients in one round; more wait for the next.
const ACCEPTED_A_ROUND: usize = 64;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code and reason, such as `200 OK`.
    pub status: &'static str,
    /// Media type.
    pub content_type: &'static str,
    /// More header fields, each with its `\r\n`.
    pub headers: String,
    /// What it says.
    pub body: Vec<u8>,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The path, as it came: nothing is unescaped.
    pub path: &'a str,
    /// What follows the `?`; empty when nothing does.
    pub query: &'a str,
    /// The field `Host`: whom the client believes to talk to, `name` or `name:port`.
    pub host: Option<&'a str>,
}

impl Answer {
    /// A line of text.
    pub fn text(status: &'static str, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }

    /// An answer without header fields of its own.
    pub fn new(status: &'static str, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            content_type,
            headers: String::new(),
            body: body.into(),
        }
    }
}

/// Answers GET requests.
pub struct HttpServer {
    listener: TcpListener,
    clients: Vec<Client>,
    most_clients: usize,
    sent_away: u64,
}

struct Client {
    stream: TcpStream,
    since: Instant,
    request: Vec<u8>,
    answer: Option<Vec<u8>>,
    sent: usize,
}

impl HttpServer {
    /// Listens on `host:port`; `name` is that of the sink.
    ///
    /// # Errors
    /// [`PeerError::Io`] when it cannot.
    pub fn listen(name: &str, address: &str) -> Result<Self, PeerError> {
        let fail = || PeerError::io(format!("{name} cannot listen on {address}"));
        let listener = TcpListener::bind(address).map_err(fail())?;
        listener.set_nonblocking(true).map_err(fail())?;
        let local = listener.local_addr().map_err(fail())?;
        if !local.ip().is_loopback() {
            warn!(sink = name, %local, "listens beyond this machine, without any authentication");
        }
        info!(sink = name, %local, "listening");
        Ok(Self {
            listener,
            clients: Vec::new(),
            most_clients: MOST_CLIENTS,
            sent_away: 0,
        })
    }

    /// The same with room for so many clients at a time.
    pub fn with_room_for(mut self, most_clients: usize) -> Self {
        self.most_clients = most_clients.max(1);
        self
    }

    /// Where it listens.
    #[cfg(test)]
    pub fn address(&self) -> std::net::SocketAddr {
        self.listener
            .local_addr()
            .expect("a listening socket has an address")
    }

    /// How many are connected, and how many were sent away.
    pub fn count(&self) -> Clients {
        Clients {
            connected: self.clients.len(),
            sent_away: self.sent_away,
        }
    }

    /// Accepts who waits, and answers whoever has asked.
    pub fn poll(&mut self, mut answer: impl FnMut(&Request<'_>) -> Answer) {
        for _ in 0..ACCEPTED_A_ROUND {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() >= self.most_clients {
                // They stand in the order in which they came.
                self.clients.remove(0);
                self.sent_away += 1;
            }
            self.clients.push(Client {
                stream,
                since: Instant::now(),
                request: Vec::new(),
                answer: None,
                sent: 0,
            });
        }
        let before = self.clients.len();
        self.clients
            .retain(|client| client.since.elapsed() < PATIENCE);
        self.sent_away += (before - self.clients.len()) as u64;
        self.clients.retain_mut(|client| client.serve(&mut answer));
    }
}

impl Client {
    /// Goes on with it; whether there is more to do.
    fn serve(&mut self, answer: &mut impl FnMut(&Request<'_>) -> Answer) -> bool {
        if self.answer.is_none() {
            match self.read() {
                Ok(true) => {}
                Ok(false) => return true,
                Err(()) => return false,
            }
            self.answer = Some(bytes_of(&respond(&self.request, answer)));
        }
        self.send()
    }

    /// Whether the whole request is there; fails when the client is gone.
    fn read(&mut self) -> Result<bool, ()> {
        let mut bytes = [0; 2048];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(()),
                Ok(count) => self.request.extend_from_slice(&bytes[..count]),
                Err(error) if is_timeout(&error) => break,
                Err(_) => return Err(()),
            }
            if self.request.len() > LONGEST_REQUEST {
                return Ok(true);
            }
        }
        let ends = |end: &[u8]| self.request.windows(end.len()).any(|part| part == end);
        Ok(ends(b"\r\n\r\n") || ends(b"\n\n"))
    }

    fn send(&mut self) -> bool {
        let bytes = self.answer.as_deref().unwrap_or_default();
        while self.sent < bytes.len() {
            match self.stream.write(&bytes[self.sent..]) {
                Ok(0) => return false,
                Ok(count) => self.sent += count,
                Err(error) => return is_timeout(&error),
            }
        }
        // Whoever closes first with unread bytes cuts the answer off, so only this side is closed.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        false
    }
}

fn respond(request: &[u8], answer: &mut impl FnMut(&Request<'_>) -> Answer) -> (Answer, bool) {
    if request.len() > LONGEST_REQUEST {
        return (
            Answer::text("431 Request Header Fields Too Large", "too long"),
            true,
        );
    }
    let line = request.split(|byte| *byte == b'\n').next();
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let words: Vec<&str> = line.unwrap_or_default().split_ascii_whitespace().collect();
    let [method, target, version] = words[..] else {
        return (Answer::text("400 Bad Request", "no HTTP request"), true);
    };
    if !version.starts_with("HTTP/1.") {
        return (
            Answer::text("505 HTTP Version Not Supported", "HTTP/1.1 only"),
            true,
        );
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let asked = Request {
        path,
        query,
        host: host(request),
    };
    match method {
        "GET" => (answer(&asked), true),
        "HEAD" => (answer(&asked), false),
        _ => (Answer::text("405 Method Not Allowed", "GET only"), true),
    }
}

/// The field `Host`, if it is there once.
fn host(request: &[u8]) -> Option<&str> {
    let mut hosts = request
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            name.eq_ignore_ascii_case("host").then(|| value.trim())
        });
    let first = hosts.next();
    first.filter(|_| hosts.next().is_none())
}

fn bytes_of((answer, with_body): &(Answer, bool)) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n",
        answer.status,
        answer.content_type,
        answer.body.len()
    );
    if answer.status.starts_with("405") {
        text += "Allow: GET, HEAD\r\n";
    }
    text += &answer.headers;
    text += "\r\n";
    let mut bytes = text.into_bytes();
    if *with_body {
        bytes.extend_from_slice(&answer.body);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (HttpServer, std::net::SocketAddr) {
        let server = HttpServer::listen("test", "127.0.0.1:0").unwrap();
        let address = server.address();
        (server, address)
    }

    fn answer(request: &Request<'_>) -> Answer {
        match request.path {
            "/asked" => Answer::text("200 OK", &format!("{request:?}")),
            "/here" => Answer::text("200 OK", &"x".repeat(200_000)),
            _ => Answer::text("404 Not Found", "nothing"),
        }
    }

    fn poll(server: &mut HttpServer, rounds: usize) {
        for _ in 0..rounds {
            server.poll(answer);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The answer to a request that comes in pieces.
    fn ask(server: &mut HttpServer, address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        for piece in request.chunks(7) {
            stream.write_all(piece).unwrap();
            if request.len() < 100 {
                poll(server, 1);
            }
        }
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            String::from_utf8(text).unwrap()
        });
        while !reader.is_finished() {
            poll(server, 1);
        }
        reader.join().unwrap()
    }

    #[test]
    fn requests_are_answered_and_what_is_none_is_refused() {
        let (mut server, address) = server();
        let mut ask = |request: &[u8]| ask(&mut server, address, request);
        let good = ask(b"GET /here?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.len() > 200_000);
        assert!(ask(b"GET /here HTTP/1.0\n\n").starts_with("HTTP/1.1 200"));
        let head = ask(b"HEAD /here HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 200001") && head.ends_with("\r\n\r\n"));
        assert!(ask(b"GET /there HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(b"POST /here HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask(b"GET /here HTTP/2.0\r\n\r\n").starts_with("HTTP/1.1 505"));
        assert!(ask(b"\xff\xfe\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(ask(&b"x".repeat(20_000)).starts_with("HTTP/1.1 431"));
        assert_eq!(server.count().connected, 0);
    }

    #[test]
    fn query_and_host_are_handed_on_as_they_came() {
        let (mut server, address) = server();
        let mut asked = |request: &[u8]| ask(&mut server, address, request);
        let found = asked(b"GET /asked?a=%2e&b HTTP/1.1\r\naccept: */*\r\nhOsT:  x:1 \r\n\r\n");
        assert!(
            found.contains("query: \"a=%2e&b\", host: Some(\"x:1\")"),
            "{found}"
        );
        let none = asked(b"GET /asked HTTP/1.1\r\n\r\n");
        assert!(none.contains("query: \"\", host: None"), "{none}");
        let twice = asked(b"GET /asked HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert!(twice.contains("host: None"), "{twice}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_gets_one_whole_answer(request in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), known: bool) {
            // Half of them begin as a request does.
            let request = [if known { &b"GET /asked?"[..] } else { b"" }, &request].concat();
            let answer = bytes_of(&respond(&request, &mut answer));
            let text = String::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            proptest::prop_assert!(head.starts_with("HTTP/1.1 "));
            let length = format!("Content-Length: {}", body.len());
            proptest::prop_assert!(head.lines().any(|line| line == length), "{}", head);
        }
    }

    #[test]
    fn squatters_keep_nobody_out() {
        let (mut server, address) = server();
        let squatters: Vec<_> = (0..100)
            .map(|_| {
                let stream = TcpStream::connect(address).unwrap();
                poll(&mut server, 1);
                stream
            })
            .collect();
        assert_eq!(server.count().connected, MOST_CLIENTS);
        assert!(
            ask(&mut server, address, b"GET /here HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200")
        );
        for client in &mut server.clients {
            client.since -= PATIENCE;
        }
        poll(&mut server, 1);
        assert_eq!(server.count().connected, 0);
        drop(squatters);
    }
}
