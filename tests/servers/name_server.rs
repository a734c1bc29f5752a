//! A name server of the tests' own, on a loopback address of its own: by UDP and TCP at port 53, by TLS at port 853.

use super::tls::Identity;
use crate::process::Running;
use crate::wait;
use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Cname};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

/// The server. It answers as long as this program runs.
#[derive(Debug)]
pub struct NameServer {
    /// Where it listens.
    pub address: Ipv4Addr,
    _tls: Running,
}

/// What ends TLS in front of it: `ADDRESS CERTIFICATE KEY`.
const TLS: &str = "import socket, ssl, sys\n\
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[2], sys.argv[3])\n\
    server = context.wrap_socket(socket.create_server((sys.argv[1], 853)), server_side=True)\n\
    while True:\n\
    \ttry: peer = server.accept()[0]\n\
    \texcept OSError: continue\n\
    \tbehind = socket.create_connection((sys.argv[1], 53))\n\
    \tbehind.sendall(peer.recv(4096)); peer.sendall(behind.recv(4096)); peer.close(); behind.close()";

impl NameServer {
    /// Starts it; `dir` is for its certificate.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let [_, a, b, c, ..] = *uuid::Uuid::new_v4().as_bytes();
        let address = Ipv4Addr::new(127, 100 + a % 100, b, 1 + c % 250);
        let udp = UdpSocket::bind((address, 53)).expect("port 53");
        let tcp = TcpListener::bind((address, 53)).expect("port 53");
        std::thread::spawn(move || by_udp(&udp));
        std::thread::spawn(move || tcp.incoming().flatten().for_each(|peer| drop(by_tcp(peer))));
        let (_, certificate, key) = Identity::new().write(dir);
        let mut command = Command::new("python3");
        command.args(["-c", TLS, &address.to_string()]).arg(certificate).arg(key);
        let tls = Running::start("a name server by TLS", &mut command);
        wait::until_true("it listens", wait::DEADLINE, || TcpStream::connect((address, 853)).is_ok());
        Self { address, _tls: tls }
    }
}

fn by_udp(socket: &UdpSocket) {
    let mut bytes = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
        if let Some(answer) = bytes.get(..length).and_then(answer) {
            socket.send_to(&answer, peer).expect("an answer is sent");
        }
    }
}

fn by_tcp(mut peer: TcpStream) -> std::io::Result<()> {
    let mut length = [0; 2];
    peer.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    peer.read_exact(&mut question)?;
    let Some(answer) = answer(&question) else { return Ok(()) };
    let length = u16::try_from(answer.len()).expect("a short answer");
    peer.write_all(&[&length.to_be_bytes()[..], &answer].concat())
}

/// A name of the form `ANYTHING.127-0-1-5.test` is another name of `canonical.test`, which has the address that it tells.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_slice(question).ok()?;
    let asked = question.sole_question().ok()?;
    let mut answer = MessageBuilder::new_vec().start_answer(question, Rcode::NOERROR).ok()?;
    let text = asked.qname().to_string();
    let address: Option<Ipv4Addr> =
        text.split('.').nth(1).and_then(|label| label.replace('-', ".").parse().ok());
    if let Some(address) = address.filter(|_| asked.qtype() == Rtype::A) {
        let canonical: Name<Vec<u8>> = "canonical.test".parse().ok()?;
        let ttl = Ttl::from_secs(60);
        answer.push((asked.qname(), ttl, Cname::new(&canonical))).ok()?;
        answer.push((&canonical, ttl, A::new(address))).ok()?;
    }
    Some(answer.finish())
}
