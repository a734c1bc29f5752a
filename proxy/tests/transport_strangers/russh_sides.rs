//! russh on either side.

use super::*;

struct Anybody;

impl russh::server::Handler for Anybody {
    type Error = russh::Error;
}

struct TrustsAll;

impl russh::client::Handler for TrustsAll {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_as_a_target_takes_the_hybrid_exchange() {
    let config = Arc::new(russh::server::Config {
        keys: vec![ed25519()],
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        ..Default::default()
    });
    for (kex, cipher) in [
        (KexAlgorithm::MlKem768X25519, Cipher::Aes256Gcm),
        (KexAlgorithm::MlKem768X25519, Cipher::ChaCha20Poly1305),
        (KexAlgorithm::Curve25519, Cipher::Aes256Gcm),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let server = tokio::spawn(russh::server::run_stream(config.clone(), accepted, Anybody));
        let mut client = ClientConfig::new(HostKeyAlgorithm::all());
        (client.kex, client.ciphers) = (vec![kex], vec![cipher]);
        let mut connection = Connection::new(Leg::client(client).unwrap(), stream);
        connection.ready().await;
        assert_eq!(ask_for_login(&mut connection, "anybody").await[0], 51);
        drop(server.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn russh_as_a_client_takes_the_hybrid_exchange_and_moves_data_over_rekeys() {
    for cipher in [russh::cipher::AES_256_GCM, russh::cipher::CHACHA20_POLY1305] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = ServerConfig::new(vec![HostKey::new(&ed25519(), None).unwrap()]);
        (config.kex, config.rekey) = (vec![KexAlgorithm::MlKem768X25519], old_soon());
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_echo(stream, Arc::new(config)).await
        });
        let client = russh::client::Config {
            preferred: russh::Preferred { cipher: vec![cipher].into(), ..Default::default() },
            ..Default::default()
        };
        let mut session = russh::client::connect(Arc::new(client), address, TrustsAll).await.unwrap();
        assert!(session.authenticate_none("anybody").await.unwrap().success());
        let channel = session.channel_open_session().await.unwrap();
        channel.exec(true, "anything").await.unwrap();
        let input = noise(3 << 20);
        let (mut reading, writing) = channel.split();
        let sent = input.clone();
        let feeding = tokio::spawn(async move {
            writing.data(&sent[..]).await.unwrap();
            writing.eof().await.unwrap();
            writing
        });
        let mut output = Vec::new();
        while let Some(message) = reading.wait().await {
            if let russh::ChannelMsg::Data { data } = message {
                output.extend_from_slice(&data);
            }
        }
        drop(feeding.await.unwrap());
        assert!(output == input, "{} bytes came back", output.len());
        drop(session);
        assert!(serving.await.unwrap() > 3);
    }
}
