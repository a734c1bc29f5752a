//! `docker/compose.yaml` as Compose's own parser reads it, and whether its files, versions and names fit together. The
//! services' images can't be had here; the servers in them are those that the tests run.

use custody_tests::pictures::{dashboards, yaml};
use custody_tests::process::run;
use custody_tests::wait::DEADLINE;
use custody_tests::{golang, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

fn compose() -> Value {
    let mut parser = golang::reader("compose");
    // Profiles aren't asked for: all services are parsed.
    parser.args(["-format", "json", "compose.yaml"]).current_dir(root().join("docker"));
    let said = run(&mut parser, b"", DEADLINE).ok().text();
    serde_json::from_str(&said).expect("JSON")
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn what_is_mounted_is_there_and_what_is_needed_first_says_when_it_is_healthy() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let mut mounted = 0;
    for (name, service) in services {
        for volume in list(&service["volumes"]) {
            let source = volume["source"].as_str().unwrap();
            if volume["type"] == "volume" {
                assert!(compose["volumes"].get(source).is_some(), "{name}: there is no volume {source}");
            } else if !source.ends_with("docker/prometheus-home") {
                mounted += 1;
                assert!(Path::new(source).exists(), "{name} mounts {source}, which isn't there");
                assert_eq!(volume["read_only"], true, "{name} could write to {source}");
            }
        }
        for port in list(&service["ports"]) {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: only this machine gets in");
        }
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            let healthy =
                how["condition"] != "service_healthy" || services[needed].get("healthcheck").is_some();
            assert!(healthy, "{name} waits for {needed}, which doesn't say when it is healthy");
        }
    }
    assert!(mounted >= 8, "only {mounted} files are mounted");
}

/// Whether a network, `172.31.77.0/24`, holds an address.
fn holds(network: &str, address: Ipv4Addr) -> bool {
    let (first, bits) = network.split_once('/').expect("a network");
    let mask = u32::MAX << (32 - bits.parse::<u32>().expect("bits"));
    u32::from(first.parse::<Ipv4Addr>().expect("an address")) & mask == u32::from(address) & mask
}

/// Docker gives the first free address of a network's range to whoever has none of his own, and of all of it without one.
#[test]
fn an_address_that_is_somebody_s_is_given_to_nobody_else() {
    let compose = compose();
    let mut fixed = 0;
    for (name, service) in compose["services"].as_object().unwrap() {
        for (network, joined) in service["networks"].as_object().into_iter().flatten() {
            let Some(address) = joined["ipv4_address"].as_str() else { continue };
            fixed += 1;
            let address: Ipv4Addr = address.parse().unwrap();
            let config = &compose["networks"][network]["ipam"]["config"][0];
            let within = |part: &str| config[part].as_str().map(|network| holds(network, address));
            assert_eq!(within("subnet"), Some(true), "{name}: {address} isn't of {network}");
            assert_eq!(within("ip_range"), Some(false), "{name}: others of {network} are given {address}");
        }
    }
    assert_eq!(fixed, 1, "custodyd's, which stands in certificates");
}

#[test]
fn the_servers_are_of_the_versions_that_tests_run() {
    let compose = compose();
    let tag = |service: &str| -> String {
        let image = compose["services"][service]["image"].as_str().unwrap();
        image.rsplit_once(':').unwrap().1.to_owned()
    };
    assert!(file("setup/loki/go.mod").contains(&format!("github.com/grafana/loki/v3 v{}\n", tag("loki"))));
    assert!(file("setup/java/opensearch-3/pom.xml").contains(&format!("<version>{}.", tag("opensearch"))));
    assert_eq!(tag("dashboards"), tag("opensearch"), "Dashboards are for OpenSearch of the same version");
    assert!(file("setup/java/kafka/pom.xml").contains(&format!("<version>{}</version>", tag("kafka"))));
}

/// Names that stand in two files: what the sink writes to is what Grafana, alerts and pictures look at.
#[test]
fn what_the_daemon_delivers_to_is_what_grafana_looks_at() {
    let compose = compose();
    let target = |service: &str, source: &str| -> String {
        let volumes = list(&compose["services"][service]["volumes"]);
        let found = volumes.iter().find(|volume| volume["source"].as_str().unwrap().ends_with(source));
        found.unwrap_or_else(|| panic!("{service} mounts no {source}"))["target"].as_str().unwrap().to_owned()
    };
    let provider = &yaml("docker/grafana/dashboards.yaml")["providers"][0];
    assert_eq!(provider["options"]["path"], target("grafana", "schemas/grafana"));
    for (source, kind) in [("datasources.yaml", "datasources"), ("dashboards.yaml", "dashboards")] {
        let place = target("grafana", source);
        assert!(place.starts_with(&format!("/etc/grafana/provisioning/{kind}/")), "{place}");
    }

    let sources = list(&yaml("docker/grafana/datasources.yaml")["datasources"]);
    let uids: BTreeSet<&str> = sources.iter().map(|source| source["uid"].as_str().unwrap()).collect();
    for folder in ["loki", "prometheus"] {
        for dashboard in dashboards(folder) {
            let variables = list(&dashboard.json["templating"]["list"]);
            let variable = variables.iter().find(|variable| variable["type"] == "datasource").unwrap();
            let uid = variable["current"]["value"].as_str().unwrap();
            assert!(uids.contains(uid), "{}: there is no data source {uid}", dashboard.name());
        }
    }
    let hosts = compose["services"].as_object().unwrap();
    for source in &sources {
        let url = source["url"].as_str().unwrap().strip_prefix("http://").unwrap();
        assert!(hosts.contains_key(url.split(':').next().unwrap()), "{url} is no service");
    }

    let daemon = file("docker/custody.toml");
    let loki = sources.iter().find(|source| source["type"] == "loki").unwrap();
    let tenant = loki["secureJsonData"]["httpHeaderValue1"].as_str().unwrap();
    assert!(daemon.contains(&format!("tenant = \"{tenant}\"")), "the sink writes to another tenant");
    let rules = target("loki", "schemas/loki/alerts.yaml");
    let loki_rules = yaml("docker/loki.yaml")["ruler"]["storage"]["local"]["directory"].clone();
    assert_eq!(rules, format!("{}/{tenant}/alerts.yaml", loki_rules.as_str().unwrap()));
    let stream = sources.iter().find(|source| source["uid"] == "custody-opensearch").unwrap();
    let pattern = stream["jsonData"]["database"].as_str().unwrap();
    assert!(daemon.contains(&format!("stream = \"{}default\"", pattern.trim_end_matches('*'))));

    // What Prometheus reads lies where it is mounted.
    let prometheus = yaml("docker/prometheus.yaml");
    assert_eq!(prometheus["rule_files"][0], target("prometheus", "schemas/prometheus/alerts.yaml"));
    let home = target("prometheus", "docker/prometheus-home");
    let tls = prometheus["scrape_configs"][0]["tls_config"].as_object().unwrap();
    assert!(tls.values().all(|path| path.as_str().unwrap().starts_with(&home)), "{tls:?}");
    assert_eq!(prometheus["scrape_configs"][0]["job_name"], "custody", "the alerts' name for it");
}
