//! An HTTP server that answers as a test says: for destinations of which no real one runs here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// The longest head and body that it takes, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 16 << 20;

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `POST`
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What it answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status; 0 ends the connection instead.
    pub status: u16,
    /// Headers beside the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A status and a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: vec![], body: body.into() }
    }

    /// With a header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The connection ends before an answer.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}

type Script<T> = dyn Fn(&mut T, &Asked) -> Answer + Send + Sync;

/// A server with a state that the script and the test share. It ends with the process.
pub struct Scripted<T> {
    /// Its port on 127.0.0.1.
    pub port: u16,
    state: Arc<Mutex<T>>,
}

impl<T: Send + 'static> Scripted<T> {
    /// Starts it.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn start(state: T, script: impl Fn(&mut T, &Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(Mutex::new(state));
        let script: Arc<Script<T>> = Arc::new(script);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, script) = (Arc::clone(&shared), Arc::clone(&script));
                std::thread::spawn(move || while serve(&stream, &state, &*script).is_some() {});
            }
        });
        Self { port, state }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its state, while nobody is answered.
    ///
    /// # Panics
    /// When the script has panicked.
    pub fn state(&self) -> MutexGuard<'_, T> {
        self.state.lock().expect("the script doesn't panic")
    }
}

/// One request; nothing at the end of the connection.
fn serve<T>(mut stream: &TcpStream, state: &Mutex<T>, script: &Script<T>) -> Option<()> {
    let asked = read(stream)?;
    let answer = script(&mut state.lock().expect("the script doesn't panic"), &asked);
    if answer.status == 0 {
        return None;
    }
    let mut head = format!("HTTP/1.1 {} .\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{}", answer.body).as_bytes()).ok()
}

fn read(mut stream: &TcpStream) -> Option<Asked> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
        if head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut asked = Asked { method, path, headers, body: vec![] };
    let length: usize = asked.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
    if length > BODY_BYTES_MAX {
        return None;
    }
    asked.body = vec![0; length];
    stream.read_exact(&mut asked.body).ok()?;
    Some(asked)
}
