//! The include with which plain `ssh root@web-1.custody` works.

use crate::profile::{Home, Profile};
use anyhow::{Context as _, bail};
use std::path::Path;

/// What the proxy itself is called: for `ssh LOGIN+NODE@custody` and `ssh -J custody`.
const PROXY: &str = "custody";

/// Its text; `identity` is the file of the key that was certified. It is in words that not only OpenSSH knows: paramiko and
/// libssh read such files too, and don't know `%n` and `Match originalhost`. AES-GCM comes first: it takes half the CPU of the
/// stock client's first choice.
pub fn of(home: &Home, profile: &Profile, identity: &Path) -> anyhow::Result<String> {
    let Some((host, port)) = profile.ssh_address.rsplit_once(':') else {
        bail!("the server names «{}» as its SSH address: that isn't host:port", profile.ssh_address);
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let program = std::env::current_exe().context("the path of this program isn't known")?;
    let custody = format!("\"{}\" connect", program.display());
    // `custody connect` says which node is meant, hands its socket to ssh and is gone: no copying process stays.
    // Within TLS it can't: that is its own to encrypt.
    let (to_node, to_proxy) = if profile.tls {
        let tls =
            format!("{custody} --tls \"{}\" {}", home.path("ca.pem").display(), api_address(&profile.api)?);
        (format!("ProxyCommand {tls} %h"), format!("ProxyCommand {tls}"))
    } else {
        let node = format!("ProxyCommand {custody} {} %h\n  ProxyUseFdpass yes", profile.ssh_address);
        (node, format!("HostName {host}\n  Port {port}"))
    };
    // The host key that ssh sees is the proxy's, so it is checked under the proxy's name.
    Ok(format!(
        "# Written by `custody login`; changes are lost at the next one.\n\
         Host *.custody\n\
         \x20 {to_node}\n\
         Host {PROXY}\n\
         \x20 {to_proxy}\n\
         Host {PROXY} *.custody\n\
         \x20 HostKeyAlias {host}\n\
         \x20 IdentityFile \"{identity}\"\n\
         \x20 CertificateFile \"{certificate}\"\n\
         \x20 IdentitiesOnly yes\n\
         \x20 UserKnownHostsFile \"{known_hosts}\"\n\
         \x20 StrictHostKeyChecking yes\n\
         \x20 Ciphers ^aes128-gcm@openssh.com,aes256-gcm@openssh.com\n",
        identity = identity.display(),
        certificate = home.path("id-cert.pub").display(),
        known_hosts = home.path("known_hosts").display(),
    ))
}

/// `host:port` of the API's URL.
fn api_address(url: &str) -> anyhow::Result<String> {
    let url: reqwest::Url = url.parse().with_context(|| format!("«{url}» is no URL"))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        bail!("«{url}» names no host");
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_at_the_port_of_its_url() {
        assert_eq!(api_address("https://custody.example.com").unwrap(), "custody.example.com:443");
        assert_eq!(api_address("https://[::1]:3080/").unwrap(), "[::1]:3080");
        assert!(api_address("custody").is_err());
    }
}
