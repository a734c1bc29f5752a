//! russh, an implementation that isn't ours, as a client of the proxy and as a target behind it.

use custody_tests::process::{free_port, run};
use custody_tests::servers::World;
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::wait::DEADLINE;
use russh::keys::{Certificate, PublicKeyOrCertificate, load_openssh_certificate, load_secret_key};
use russh::server::{Auth, ChannelOpenHandle, Msg, Server as _, Session};
use russh::{Channel, ChannelId, ChannelMsg, Preferred, client, server};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Takes whatever host key is shown: what is tested here is the transport; the keys have tests of their own.
struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Runs a command by russh; gives its output, its status, and whether it was told.
async fn exec(handle: &client::Handle<AnyHost>, command: &str, input: &[u8]) -> (Vec<u8>, Option<u32>) {
    let mut channel = handle.channel_open_session().await.expect("a channel");
    channel.exec(true, command).await.expect("exec");
    channel.data(input).await.expect("input");
    channel.eof().await.expect("eof");
    let (mut out, mut status) = (Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => out.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (out, status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_as_a_client_works_through_the_proxy() {
    let world = World::start();
    let home = &world.operator.dir;
    let key = Arc::new(load_secret_key(home.join("id"), None).unwrap());
    let certificate = load_openssh_certificate(home.join("id-cert.pub")).unwrap();
    let config = Arc::new(client::Config { preferred: Preferred::default(), ..client::Config::default() });
    let mut handle = client::connect(config, ("127.0.0.1", world.custodyd.ssh_port), AnyHost).await.unwrap();
    let outcome = handle.authenticate_openssh_cert("root+web-1", key, certificate).await.unwrap();
    assert!(outcome.success(), "{outcome:?}");

    let (out, status) = exec(&handle, "cat; exit 42", b"by russh").await;
    assert_eq!((out.as_slice(), status), (b"by russh".as_slice(), Some(42)));
    let (long, status) = exec(&handle, "head -c 2000000 /dev/zero", b"").await;
    assert_eq!((long.len(), status), (2_000_000, Some(0)));
    let (left, right) = tokio::join!(exec(&handle, "echo left", b""), exec(&handle, "echo right", b""));
    assert_eq!((left.0.as_slice(), right.0.as_slice()), (b"left\n".as_slice(), b"right\n".as_slice()));
}

/// A target that takes certificates of one CA and echoes what it was asked to run.
#[derive(Clone)]
struct Target {
    ca: russh::keys::PublicKey,
}

impl server::Server for Target {
    type Handler = Self;

    fn new_client(&mut self, _: Option<SocketAddr>) -> Self {
        self.clone()
    }
}

impl server::Handler for Target {
    type Error = russh::Error;

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        let good = certificate.signature_key() == self.ca.key_data()
            && certificate.valid_principals().iter().any(|p| p == user);
        Ok(if good { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        session.data(channel, format!("you said: {}\n", String::from_utf8_lossy(data)).into_bytes())?;
        session.exit_status_request(channel, 3)?;
        session.eof(channel)?;
        session.close(channel)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_as_a_target_is_reached_through_the_proxy() {
    let world = World::start();
    let dir = world.dir().join("russh");
    std::fs::create_dir(&dir).unwrap();
    let (key, public) = (dir.join("host"), dir.join("host.pub"));
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path(&key)]);
    let port = free_port();
    world.admin.custody(&[
        "node",
        "add",
        "russh-1",
        &format!("127.0.0.1:{port}"),
        "--host-key",
        path(&public),
    ]);
    world.admin.custody(&["node", "enroll", "russh-1", "--host-key-pub", path(&public), "--out", path(&dir)]);
    let ca = std::fs::read_to_string(dir.join("custody_target_ca.pub")).unwrap();
    let mut target = Target { ca: russh::keys::PublicKey::from_openssh(ca.trim()).unwrap() };
    let config = Arc::new(server::Config {
        keys: vec![load_secret_key(&key, None).unwrap()],
        ..server::Config::default()
    });
    let socket = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let running = target.run_on_socket(config, &socket);
    let stop = running.handle();
    let ask = async {
        let mut ssh = world.proxied();
        ssh.args(["root@russh-1.custody", "say this"]);
        let said = tokio::task::spawn_blocking(move || run(&mut ssh, b"", DEADLINE)).await.unwrap();
        stop.shutdown("done".into());
        said
    };
    let (_, said) = tokio::join!(running, ask);
    assert_eq!((said.code, said.text().as_str()), (3, "you said: say this\n"), "{}", said.err);
}
