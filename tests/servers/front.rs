//! nginx from Debian before a store: TLS with a certificate of our own CA, and only for those who show what they should.

use super::service::Service;
use super::sshd::path;
use super::tls::Identity;
use crate::process::free_port;
use std::path::{Path, PathBuf};

/// It passes on what bears the right `Authorization`, and answers 401 to the rest.
#[derive(Debug)]
pub struct Front {
    /// Its process.
    pub service: Service,
    /// The certificate of the CA that signed its own.
    pub ca: PathBuf,
    dir: PathBuf,
}

impl Front {
    /// With its files in `dir`, before an HTTP server on a port of loopback. `authorization` is the header's whole value.
    ///
    /// # Panics
    /// When its files can't be written.
    #[must_use]
    pub fn prepare(dir: &Path, upstream: u16, authorization: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for nginx");
        let (port, folder) = (free_port(), path(dir));
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
            .collect();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr warn;\nevents {{}}\nhttp {{\n\
             {temporary}  access_log off;\n  client_max_body_size 64m;\n  server {{\n    \
             listen 127.0.0.1:{port} ssl;\n    ssl_certificate {folder}/server.pem;\n    \
             ssl_certificate_key {folder}/server.key;\n    location / {{\n      \
             if ($http_authorization != \"{authorization}\") {{ return 401; }}\n      \
             proxy_pass http://127.0.0.1:{upstream};\n      proxy_http_version 1.1;\n    }}\n  }}\n}}\n"
        );
        let config = dir.join("nginx.conf");
        std::fs::write(&config, text).expect("nginx's configuration");
        let service =
            Service::new("nginx", dir, "/usr/sbin/nginx".into(), port).arguments(["-c", path(&config)]);
        let mut front = Self { service, ca: dir.join("ca.pem"), dir: dir.to_owned() };
        front.renew();
        front
    }

    /// A certificate of another CA from the next start on; `ca` is another one at once.
    pub fn renew(&mut self) {
        Identity::new().write(&self.dir);
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        self.service.start(|| true);
    }

    /// `https://localhost:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.service.port())
    }
}
