//! Case 14: company certificates and proxies, with servers in the test process.

use super::hub::read;
use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Names and addresses in the certificates. Only the proxies of these tests resolve the first name.
const NAMES: [&str; 3] = ["hub.test", "localhost", "127.0.0.1"];

/// The certificate authority of a company.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// The TLS configuration of a server with a certificate for `names`.
    fn server(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
    }
}

fn plan() -> Plan {
    Plan {
        files: vec![("config.json", b"{}".to_vec()), ("model.safetensors", weights())],
        ..Plan::default()
    }
}

fn assert_pulled(hub: &Hub) {
    let path = hub.pull("org/name").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    assert!(!hub.requests("").is_empty());
    fs::remove_dir_all(hub.cache.join("models--org--name")).unwrap();
}

#[test]
fn case_14_a_company_certificate_is_trusted_where_a_variable_names_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut hub = Hub::start(plan(), Some(authority.server(&NAMES, |_| {})));
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name).to_str().unwrap().to_owned()
    };
    let ours = write("ours.pem", &authority.pem());
    let both = write("both.pem", &format!("# Comments\r\n{}\r\n{}", other.pem(), authority.pem()));
    let others = write("others.pem", &other.pem());

    // Every variable works with the right value.
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::copy(&ours, folder.join("0a1b2c3d.0")).unwrap();
    fs::write(folder.join("README"), "not a certificate").unwrap();
    let folder = folder.to_str().unwrap();
    let folders = format!("/nothing:{folder}");
    for (name, value) in [
        ("SSL_CERT_FILE", ours.as_str()),
        ("SSL_CERT_FILE", &both),
        ("REQUESTS_CA_BUNDLE", &ours),
        ("REQUESTS_CA_BUNDLE", folder),
        ("CURL_CA_BUNDLE", &ours),
        ("SSL_CERT_DIR", folder),
        #[cfg(unix)]
        ("SSL_CERT_DIR", &folders),
    ] {
        hub.set(name, value);
        assert_pulled(&hub);
        hub.set(name, "");
    }
    // All variables that are set are read together. The token is sent through TLS, too.
    hub.set("SSL_CERT_FILE", &others);
    hub.set("REQUESTS_CA_BUNDLE", &ours);
    hub.change(|plan| plan.token = Some("secret"));
    hub.set("HF_TOKEN", "secret\n");
    assert_pulled(&hub);
    hub.set("REQUESTS_CA_BUNDLE", "");

    hub.n_connections();
    // With no variable, or with another authority's certificate, the error names the variable after one attempt.
    for value in ["", &others] {
        hub.set("SSL_CERT_FILE", value);
        let error = hub.error("org/name");
        assert!(error.contains("SSL_CERT_FILE") && error.contains("127.0.0.1"), "{error}");
        assert_eq!(hub.n_connections(), 1, "it is tried once");
    }
    // A file without a certificate, and a missing file.
    let empty = write("empty.pem", "nothing");
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"] {
        for value in [empty.as_str(), "/nothing/here.pem"] {
            hub.set("SSL_CERT_FILE", "");
            hub.set(name, value);
            let error = hub.error("org/name");
            assert!(error.contains(name), "{name}={value}: {error}");
            hub.set(name, "");
        }
    }
    assert_eq!(hub.n_connections(), 0, "nothing was asked for");
}

#[test]
fn case_14_what_is_wrong_with_a_certificate_is_said() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ours.pem");
    fs::write(&file, authority.pem()).unwrap();
    let old = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let future =
        |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let itself =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (server, words) in [
        (authority.server(&NAMES, old), "expired"),
        (authority.server(&NAMES, future), "not valid yet"),
        (authority.server(&["elsewhere.test"], |_| {}), "another name"),
        (authority.server(&NAMES, itself), "that of an authority"),
    ] {
        let mut hub = Hub::start(plan(), Some(server));
        hub.set("SSL_CERT_FILE", file.to_str().unwrap());
        let error = hub.error("org/name");
        assert!(error.contains(words) && error.contains("127.0.0.1"), "{words}: {error}");
        assert_eq!(hub.n_connections(), 1, "it is tried once");
    }
}

#[test]
fn the_system_is_asked_before_mozilla() {
    use ureq::tls::RootCerts;
    match certificates::roots(&[]).unwrap() {
        RootCerts::Specific(roots) => assert!(!roots.is_empty()),
        RootCerts::WebPki => assert!(!Path::new("/etc/ssl/certs/ca-certificates.crt").exists()),
        other => panic!("{other:?}"),
    }
}

/// The requests that a proxy has received: `CONNECT host:port`, `GET url` or `SOCKS host:port`.
type Asked = Arc<Mutex<Vec<String>>>;

/// Starts a proxy of `kind` that accepts only `user` (`name:password`), or every user. Returns its address
/// and requests.
fn proxy(
    kind: fn(TcpStream, Option<&str>, &Asked) -> io::Result<()>,
    user: Option<&'static str>,
) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Asked::default();
    let ours = asked.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let asked = ours.clone();
            thread::spawn(move || kind(client, user, &asked));
        }
    });
    (address, asked)
}

/// Copies bytes between client and server in both directions.
fn carry(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut to));
    let (mut from, mut to) = (server, client);
    io::copy(&mut from, &mut to)?;
    to.shutdown(std::net::Shutdown::Both)
}

fn open(target: &str) -> io::Result<TcpStream> {
    let (host, port) = target.rsplit_once(':').unwrap_or((target, "80"));
    match NAMES.contains(&host) {
        true => TcpStream::connect(format!("127.0.0.1:{port}")),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

fn http_proxy(mut client: TcpStream, user: Option<&str>, asked: &Asked) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    let (method, rest) = text.split_once(' ').unwrap();
    let target = rest.split(' ').next().unwrap();
    asked.lock().unwrap().push(format!("{method} {target}"));
    let (_, headers) = read(&mut head.as_slice()).unwrap();
    let credentials = user.map(|user| {
        use base64::prelude::{BASE64_STANDARD, Engine};
        format!("Basic {}", BASE64_STANDARD.encode(user))
    });
    if headers.get("proxy-authorization") != credentials.as_ref() {
        return client
            .write_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if method == "CONNECT" {
        let Ok(server) = open(target) else {
            return client.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
        };
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        return carry(client, server);
    }
    let (host, path) = target.strip_prefix("http://").unwrap().split_once('/').unwrap();
    assert_eq!(headers["host"], host);
    let mut server = open(host)?;
    let rest = text.split_once("\r\n").unwrap().1;
    server.write_all(format!("GET /{path} HTTP/1.1\r\n{rest}").as_bytes())?;
    carry(client, server)
}

fn socks_proxy(mut client: TcpStream, user: Option<&str>, asked: &Asked) -> io::Result<()> {
    let take = |client: &mut TcpStream, n: usize| {
        let mut bytes = vec![0; n];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    let greeting = take(&mut client, 2)?;
    let methods = take(&mut client, greeting[1].into())?;
    if let Some(user) = user {
        if !methods.contains(&2) {
            return client.write_all(&[5, 0xff]);
        }
        client.write_all(&[5, 2])?;
        let n = take(&mut client, 2)?[1];
        let name = take(&mut client, n.into())?;
        let n = take(&mut client, 1)?[0];
        let password = take(&mut client, n.into())?;
        let is_right = [name, password].join(&b':') == user.as_bytes();
        client.write_all(&[1, u8::from(!is_right)])?;
        if !is_right {
            return Ok(());
        }
    } else {
        client.write_all(&[5, 0])?;
    }
    let host = match take(&mut client, 4)?[3] {
        1 => take(&mut client, 4)?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
        _ => {
            let n = take(&mut client, 1)?[0];
            String::from_utf8(take(&mut client, n.into())?).unwrap()
        }
    };
    let port = take(&mut client, 2)?;
    let target = format!("{host}:{}", u16::from_be_bytes([port[0], port[1]]));
    asked.lock().unwrap().push(format!("SOCKS {target}"));
    let server = open(&target);
    client.write_all(&[5, if server.is_ok() { 0 } else { 2 }, 0, 1, 0, 0, 0, 0, 0, 0])?;
    carry(client, server?)
}

/// Gives the hub the name that only the proxies resolve. Returns the hub's `HOST:PORT`.
fn behind(hub: &mut Hub) -> String {
    let endpoint = hub.endpoint.replace("127.0.0.1", "hub.test");
    hub.set("HF_ENDPOINT", &endpoint);
    endpoint.split_once("://").unwrap().1.to_owned()
}

#[test]
fn case_14_a_hub_is_reached_through_http_and_socks_proxies() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ours.pem");
    fs::write(&file, authority.pem()).unwrap();
    for user in [None, Some("us er:p@ss")] {
        let (http, http_asked) = proxy(http_proxy, user);
        let (socks, socks_asked) = proxy(socks_proxy, user);
        let user = user.map_or("", |_| "us%20er:p%40ss@");
        for is_secure in [false, true] {
            let tls = is_secure.then(|| authority.server(&NAMES, |_| {}));
            let scheme = if is_secure { "https" } else { "http" };
            let first = if is_secure { "CONNECT " } else { "GET http://" };
            let mut hub = Hub::start(plan(), tls);
            hub.set("SSL_CERT_FILE", file.to_str().unwrap());
            let address = behind(&mut hub);
            for (name, value, asked, first) in [
                (format!("{scheme}_proxy"), format!("http://{user}{http}"), &http_asked, first),
                (
                    format!("{}_PROXY", scheme.to_uppercase()),
                    format!("{user}{http}/\n"),
                    &http_asked,
                    first,
                ),
                ("ALL_PROXY".into(), format!("socks5h://{user}{socks}"), &socks_asked, "SOCKS "),
                (
                    format!("{scheme}_proxy"),
                    format!("socks5://{user}{socks}"),
                    &socks_asked,
                    "SOCKS ",
                ),
            ] {
                hub.set(&name, &value);
                assert_pulled(&hub);
                let asked = std::mem::take(&mut *asked.lock().unwrap());
                let is_right = |line: &String| line.starts_with(&format!("{first}{address}"));
                assert!(
                    !asked.is_empty() && asked.iter().all(is_right),
                    "{name}={value}: {asked:?}"
                );
                hub.environment.unset(&name);
            }
        }
    }
}

#[test]
fn case_14_no_proxy_leads_past_the_proxy_also_after_a_redirect() {
    let (http, asked) = proxy(http_proxy, None);
    let (mut hub, cdn) = (Hub::new(plan()), Hub::new(plan()));
    let address = behind(&mut hub);
    hub.change(|plan| plan.cdn = Some(cdn.endpoint.clone()));
    hub.set("HTTP_PROXY", &http);
    hub.set("NO_PROXY", "example.com, 127.0.0.0/8");
    let path = hub.pull("org/name").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(cdn.requests("/cdn/").len(), 2);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(asked.len(), 3, "the listing and two redirects: {asked:?}");
    assert!(asked.iter().all(|line| line.contains(&address)));
}

#[test]
fn case_14_no_proxy_names_hosts_addresses_and_networks() {
    let (http, asked) = proxy(http_proxy, None);
    let mut hub = Hub::new(plan());
    hub.set("ALL_PROXY", &http);
    let with_port = hub.address().to_owned();
    for (entries, n_expected) in
        [("127.0.0.1", 0), ("*", 0), (&with_port, 0), ("127.0.0.0/30", 0), ("hub.test", 5)]
    {
        hub.set("no_proxy", entries);
        assert_pulled(&hub);
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked.len(), n_expected, "{entries}: {asked:?}");
    }
}

#[test]
fn case_14_a_proxy_that_fails_is_named_and_its_password_is_not_shown() {
    let (http, http_asked) = proxy(http_proxy, Some("user:right"));
    let (socks, socks_asked) = proxy(socks_proxy, Some("user:right"));
    let mut hub = Hub::new(plan());
    // A wrong password is a final failure. A proxy that cannot be reached is a temporary one.
    for (value, endpoint, words, n_asked) in [
        (format!("http://user:wrong@{http}"), "http://hub.test:1", "user and a password", 1),
        (format!("http://{http}"), "http://hub.test:1", "user and a password", 1),
        (format!("http://user:wrong@{http}"), "https://hub.test:1", "user and a password", 1),
        (format!("http://user:right@{http}"), "https://secret.test:1", "403", 1),
        (format!("socks5://user:wrong@{socks}"), "http://hub.test:1", "user and a password", 0),
        ("http://user:wrong@127.0.0.1:9".to_owned(), "http://hub.test:1", "cannot be reached", 0),
        (
            "socks5://user:wrong@127.0.0.1:9".to_owned(),
            "https://hub.test:1",
            "cannot be reached",
            0,
        ),
    ] {
        hub.set("ALL_PROXY", &value);
        hub.set("HF_ENDPOINT", endpoint);
        let error = hub.error("org/name");
        assert!(error.contains(words) && error.contains("ALL_PROXY"), "{value}: {error}");
        assert!(!error.contains("wrong") && !error.contains("right"), "{error}");
        let asked = [
            std::mem::take(&mut *http_asked.lock().unwrap()),
            std::mem::take(&mut *socks_asked.lock().unwrap()),
        ];
        assert_eq!(asked.concat().len(), n_asked, "{value}: {asked:?}");
    }
}
