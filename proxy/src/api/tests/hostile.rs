//! What strangers send.

use super::world::{ADMIN, PASSWORD, World};
use reqwest::StatusCode;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_wrong_are_refused_in_one_line() {
    let world = World::new().await;
    let admin = world.admin().await;
    for (path, person) in [("/v1/login", world.stranger()), ("/v1/commands/create-user", admin.clone())] {
        for (body, status) in [
            (vec![b' '; super::super::BODY_BYTES_MAX + 1], StatusCode::PAYLOAD_TOO_LARGE),
            (b"{\"user\":".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
            (b"{\"user\":\"\xff\xfe\"}".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
            ("[".repeat(50_000).into_bytes(), StatusCode::UNPROCESSABLE_ENTITY),
            (b"null".to_vec(), StatusCode::UNPROCESSABLE_ENTITY),
            (Vec::new(), StatusCode::UNPROCESSABLE_ENTITY),
        ] {
            let what = format!("{path} {:?}", &body[..body.len().min(12)]);
            let answer = person.request_post(path).body(body).send().await.unwrap();
            assert_eq!(answer.status(), status, "{what}");
            let text = answer.text().await.unwrap();
            assert!(text.starts_with("{\"error\":\"") && text.len() < 500, "{text}");
        }
    }
    let password = "hunter2-hunter2";
    let body = format!("{{\"user\":\"root\",\"password\":[\"{password}\"]}}");
    let answer = world.stranger().request_post("/v1/login").body(body).send().await.unwrap();
    assert!(!answer.text().await.unwrap().contains(password));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_that_are_wrong_are_refused() {
    let world = World::new().await;
    let admin = world.admin().await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=many",
        "order=sideways",
        "from=yesterday",
        "from=99999999",
        "from=0&order=desc",
        "wait=61s",
        "wait=1s&order=desc",
        "envelope=brown",
        "proof=1",
        "from=0&since=0",
        "%6cimit=1",
        "until=tomorrow",
        "session=mine",
        "unknown=1",
        &format!("text={}", "x".repeat(513)),
        &format!("text={}", "x+".repeat(33)),
        "text=",
        "text=%22*%22",
        "type=",
        "type=Login",
        "type=login.",
        "type=login.failed,lock",
        "outcome=",
        "outcome=deny",
    ] {
        let (status, body) = admin.get(&format!("/v1/events?{query}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {body}");
        assert!(body.starts_with("{\"error\":\""), "{body}");
    }
    for text in ["%22", "%27%3BDROP%20TABLE%20entry", "%00", "a%20AND", "*", "%FF%FE"] {
        let (status, body) = admin.get(&format!("/v1/events?text={text}")).await;
        assert!(status == StatusCode::OK || status == StatusCode::UNPROCESSABLE_ENTITY, "{text}: {body}");
    }
    for (accept, query) in [
        ("text/event-stream", "order=desc"),
        ("text/event-stream", "wait=5s"),
        ("text/event-stream", "envelope=page"),
        ("application/x-ndjson", "envelope=page"),
        ("application/x-ndjson", "envelope=page&proof=1"),
        ("text/plain", "proof=1"),
    ] {
        let asked = admin.request(&format!("/v1/events?{query}")).header("accept", accept);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{accept}: {query}");
    }
    for path in ["/v1/events/0?format=ecs", "/v1/events/0/proof?limit=1"] {
        assert_eq!(admin.get(path).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
    }
    assert_eq!(admin.get("/v1/events/0").await.0, StatusCode::OK);
    let answer = admin.request_post("/v1/events").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_head_is_too_long_or_too_slow() {
    let world = World::new().await;
    let long = world.stranger().request("/healthz").header("x-long", "x".repeat(64 * 1024)).send().await;
    assert!(long.is_err() || long.is_ok_and(|answer| answer.status().is_client_error()));
    let mut many = world.stranger().request("/healthz");
    for n in 0..200 {
        many = many.header(format!("x-{n}"), "x");
    }
    let many = many.send().await;
    assert!(many.is_err() || many.is_ok_and(|answer| answer.status().is_client_error()));

    // Silence before and within the handshake, and rubbish.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut rubbish = TcpStream::connect(world.address).await.unwrap();
    rubbish.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut left = Vec::new();
    // Whether it ends with an alert or a reset, it ends.
    let _ended = tokio::time::timeout(Duration::from_secs(5), rubbish.read_to_end(&mut left)).await.unwrap();
    assert!(!left.starts_with(b"HTTP"));
    let _ended = tokio::time::timeout(Duration::from_secs(15), silent.read_to_end(&mut left)).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(8));
    assert_eq!(world.stranger().get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drip_of_header_bytes_is_cut() {
    let world = World::new().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.authorities.x509_server.certificate().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tcp = TcpStream::connect(world.address).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let begun = Instant::now();
    let cut = loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let written = stream.write_all(b"x: y\r\n").await;
        let mut answer = [0; 512];
        let read = tokio::time::timeout(Duration::from_millis(10), stream.read(&mut answer)).await;
        if written.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
            break true;
        }
        if begun.elapsed() > Duration::from_secs(30) {
            break false;
        }
    };
    assert!(cut, "a head that never ends kept its connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_shuts_nobody_out() {
    let world = World::new().await;
    let admin = world.try_login(ADMIN, PASSWORD).await;
    let url = format!("https://{}/healthz", world.address);
    let there = || world.builder().local_address("127.0.0.2".parse::<IpAddr>().unwrap());
    // Each with a connection that it keeps. All at once: the first is cut after a while in which it asks nothing more.
    let crowd: Vec<_> = (0..200).map(|_| there().build().unwrap()).collect();
    let answers = futures_util::future::join_all(crowd.iter().map(|one| one.get(&url).send())).await;
    let kept = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((128..200).contains(&kept), "{kept} connections of one address were kept");
    assert_eq!(world.stranger().get("/healthz").await.0, StatusCode::OK);
    // Whoever shows a certificate isn't counted among them.
    let body: serde_json::Value = serde_json::from_str(&admin.1).unwrap();
    let pem = format!("{}\n{}", body["x509_certificate"].as_str().unwrap(), admin.2);
    let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
    let known = there().identity(identity).build().unwrap();
    assert_eq!(known.get(&url).send().await.unwrap().status(), StatusCode::OK);
}
