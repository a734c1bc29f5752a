//! For tests: a server that answers what it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

/// What is answered.
pub enum Answer {
    /// 200.
    Body(Vec<u8>),
    /// 404.
    Missing,
    /// The connection is closed.
    Nothing,
}

/// Serves `answer`, by the path that is asked for, one request after the other. Gives its URL.
pub fn serve(mut answer: impl FnMut(&str) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") && stream.read_line(&mut request).unwrap_or(0) > 0 {}
            let (status, body) = match request.split(' ').nth(1).map(&mut answer) {
                Some(Answer::Body(body)) => ("200 OK", body),
                Some(Answer::Missing) => ("404 Not Found", Vec::new()),
                Some(Answer::Nothing) | None => continue,
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            // Whoever asked may be gone.
            stream.get_mut().write_all(&[head.into_bytes(), body].concat()).ok();
        }
    });
    url
}
