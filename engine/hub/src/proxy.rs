//! The proxy for a server, by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
//!
//! The rules follow httpx2, the client of `huggingface_hub`. The variable for the scheme of the URL comes
//! before ALL_PROXY. In NO_PROXY, `example.com` means the domain and its subdomains, `.example.com` and
//! `*.example.com` mean the subdomains alone, an address means itself, `10.0.0.0/8` means a network, and `*`
//! means every host.

use super::environment::Environment;
use crate::error::{HubError, Or, Result, fail};
use std::net::IpAddr;
use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

/// The proxies of the environment.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<Route>,
    https: Option<Route>,
    direct: Vec<Direct>,
}

/// A proxy, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) proxy: Proxy,
    /// The variable, for error messages.
    pub(super) variable: String,
}

/// An entry of NO_PROXY.
#[derive(Debug, PartialEq, Eq)]
struct Direct {
    scheme: Option<String>,
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Hosts {
    All,
    Exact(String),
    /// A domain and its subdomains.
    Domain(String),
    Below(String),
    Network(IpAddr, u8),
}

impl Proxies {
    pub(super) fn from(environment: &Environment) -> Result<Self> {
        let route = |scheme| -> Result<Option<Route>> {
            let found = match environment.proxy(scheme)? {
                Some(found) => Some(found),
                None => environment.proxy("all")?,
            };
            found.map(|(variable, url)| Route::new(variable, &url)).transpose()
        };
        let hosts = environment.no_proxy()?;
        let hosts = hosts.split(|c: char| c == ',' || c.is_whitespace());
        let direct = hosts.filter_map(Direct::parse).collect();
        Ok(Self { http: route("http")?, https: route("https")?, direct })
    }

    /// The proxy for `uri`; None for a direct connection.
    pub(super) fn route(&self, uri: &Uri) -> Option<&Route> {
        let route = match uri.scheme_str() {
            Some("https") => self.https.as_ref(),
            _ => self.http.as_ref(),
        };
        route.filter(|_| !self.direct.iter().any(|direct| direct.matches(uri)))
    }
}

impl Route {
    fn new(variable: String, url: &str) -> Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        // The error does not show the URL, which may hold a password.
        let parsed = Proxy::new(&url).ok().filter(has_port_or_none);
        let parsed = parsed.or_fail(HubError::Environment, || {
            format!("{variable}: this is no proxy; one is http://HOST:PORT or socks5://HOST:PORT")
        })?;
        let protocol = match parsed.protocol() {
            // The proxy resolves host names, as with httpx2: a machine inside a company often cannot resolve them.
            ProxyProtocol::Socks5 => ProxyProtocol::Socks5h,
            ProxyProtocol::Socks4 => ProxyProtocol::Socks4A,
            other => other,
        };
        let mut builder = Proxy::builder(protocol).host(parsed.host()).port(parsed.port());
        if let Some(name) = parsed.username() {
            builder = builder.username(name);
        }
        if let Some(password) = parsed.password() {
            builder = builder.password(password);
        }
        let Ok(proxy) = builder.build() else {
            return Err(fail!(Environment, "{variable}: this is no proxy"));
        };
        Ok(Self { proxy, variable })
    }

    /// Whether requests go to this proxy with the whole URL instead of through a tunnel. Proxies expect this
    /// form for plain HTTP, and most of them allow tunnels to port 443 only.
    pub(super) fn forwards(&self, uri: &Uri) -> bool {
        uri.scheme_str() == Some("http") && self.proxy.protocol() == ProxyProtocol::Http
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the proxy {}:{} ({})", self.proxy.host(), self.proxy.port(), self.variable)
    }
}

impl Direct {
    /// None for an entry that is empty or cannot be parsed: such an entry is ignored, as in curl.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        let (scheme, rest) = match entry.split_once("://") {
            Some(("all", rest)) => (None, rest.trim_end_matches('/')),
            Some((scheme, rest)) => (Some(scheme.to_owned()), rest.trim_end_matches('/')),
            None => (None, entry.as_str()),
        };
        if let Some((address, bits)) = rest.split_once('/') {
            let address: IpAddr = bare(address).parse().ok()?;
            let bits: u8 = bits.parse().ok().filter(|&bits| bits <= width(&address))?;
            return Some(Self { scheme, hosts: Hosts::Network(address, bits), port: None });
        }
        if bare(rest).parse::<IpAddr>().is_ok() {
            return Some(Self { scheme, hosts: Hosts::Exact(bare(rest).into()), port: None });
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (rest, None),
        };
        let host = bare(host);
        let hosts = match host {
            "" if scheme.is_none() => return None,
            "" | "*" => Hosts::All,
            host if host == "localhost" || host.parse::<IpAddr>().is_ok() => {
                Hosts::Exact(host.into())
            }
            host => match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
                Some(domain) => Hosts::Below(domain.into()),
                None => Hosts::Domain(host.trim_start_matches('*').into()),
            },
        };
        Some(Self { scheme, hosts, port })
    }

    fn matches(&self, uri: &Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or_default();
        let default_port = if scheme == "https" { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default_port);
        if self.port.is_some_and(|ours| ours != port)
            || self.scheme.as_ref().is_some_and(|ours| ours != scheme)
        {
            return false;
        }
        let host = bare(uri.host().unwrap_or_default()).to_ascii_lowercase();
        let is_below = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        match &self.hosts {
            Hosts::All => true,
            Hosts::Exact(exact) => match (exact.parse::<IpAddr>(), host.parse::<IpAddr>()) {
                (Ok(exact), Ok(host)) => exact == host,
                _ => *exact == host,
            },
            Hosts::Domain(domain) => host == *domain || is_below(domain),
            Hosts::Below(domain) => is_below(domain),
            Hosts::Network(network, bits) => {
                host.parse().is_ok_and(|host| is_inside(&host, network, *bits))
            }
        }
    }
}

/// Whether the port is a number or missing. The parser reads a port that is no number as a missing port.
fn has_port_or_none(proxy: &Proxy) -> bool {
    let authority = proxy.uri().authority().map_or("", |authority| authority.as_str());
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let rest = server.strip_prefix(proxy.host()).unwrap_or_default();
    rest.strip_prefix(':').is_none_or(|port| port.parse::<u16>().is_ok())
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn width(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether the first `bits` of both addresses are the same.
fn is_inside(address: &IpAddr, network: &IpAddr, bits: u8) -> bool {
    let number = |address: &IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let rest = u32::from(width(network) - bits);
    let prefix = |address| number(address).checked_shr(rest).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && prefix(address) == prefix(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from(&Environment::of(variables)).unwrap()
    }

    /// The host of the proxy for `url`, or "" for none.
    fn way(proxies: &Proxies, url: &str) -> String {
        let uri = url.parse().unwrap();
        proxies.route(&uri).map_or(String::new(), |route| route.proxy.host().to_owned())
    }

    #[test]
    fn case_14_the_proxy_is_that_of_the_scheme() {
        let (http, https) = ("http://h.co/x", "https://h.co/x");
        let all = proxies(&[("ALL_PROXY", "socks5://a:1"), ("HTTPS_PROXY", "s:2")]);
        assert_eq!((way(&all, http).as_str(), way(&all, https).as_str()), ("a", "s"));
        let http_only = proxies(&[("http_proxy", "http://p:3128\n"), ("HTTPS_PROXY", "")]);
        assert_eq!((way(&http_only, http).as_str(), way(&http_only, https).as_str()), ("p", ""));
        // The variable in lower case comes first, also if it is empty.
        let both = proxies(&[("https_proxy", "low:1"), ("HTTPS_PROXY", "up:1")]);
        assert_eq!(way(&both, https), "low");
        let off = proxies(&[("https_proxy", ""), ("HTTPS_PROXY", "up:1")]);
        assert_eq!(way(&off, https), "");

        let route = |url| Route::new("HTTPS_PROXY".into(), url);
        let socks = route("socks5://user:p%40ss@proxy").unwrap();
        assert_eq!(socks.proxy.protocol(), ProxyProtocol::Socks5h, "the proxy resolves names");
        assert_eq!((socks.proxy.username(), socks.proxy.password()), (Some("user"), Some("p@ss")));
        assert_eq!(socks.to_string(), "the proxy proxy:1080 (HTTPS_PROXY)", "no password");
        assert_eq!(route("http://[::1]:81").unwrap().proxy.port(), 81);
        for bad in ["ftp://user:secret@x", "http://", "http://user:secret@x:port", "a b"] {
            let error = route(bad).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn case_14_no_proxy_is_read_as_the_hubs_client_reads_it() {
        // An entry, URLs that it excepts from the proxy, and URLs that it does not except.
        let cases: [(&str, &[&str], &[&str]); 14] = [
            ("*", &["https://a.b", "http://1.2.3.4"], &[]),
            ("a,*", &["https://x.y"], &[]),
            ("hub.co", &["https://hub.co", "http://x.HUB.co:8"], &["https://xhub.co", "http://co"]),
            (".hub.co", &["https://a.hub.co", "http://a.b.hub.co"], &["https://hub.co"]),
            ("*.hub.co", &["https://a.hub.co"], &["https://hub.co", "https://xhub.co"]),
            ("x, hub.co ,y", &["https://hub.co"], &["https://z"]),
            ("hub.co:8080", &["http://hub.co:8080"], &["http://hub.co", "http://hub.co:80"]),
            ("hub.co:443", &["https://hub.co"], &["http://hub.co"]),
            ("https://hub.co", &["https://hub.co"], &["http://hub.co"]),
            ("localhost", &["http://localhost:99"], &["http://a.localhost"]),
            ("127.0.0.1", &["http://127.0.0.1:99"], &["http://127.0.0.2", "http://1.127.0.0.1.x"]),
            (
                "10.1.2.3/8",
                &["http://10.9.9.9"],
                &["http://11.0.0.1", "http://ten", "http://[::1]"],
            ),
            ("::1", &["http://[::1]:80"], &["http://[::2]"]),
            ("fd00::/8", &["http://[fd12::1]"], &["http://[fe12::1]", "http://0.0.0.0"]),
        ];
        for (entries, excepted, others) in cases {
            for name in ["NO_PROXY", "no_proxy"] {
                let proxies = proxies(&[("ALL_PROXY", "proxy:1"), (name, entries)]);
                for url in excepted {
                    assert_eq!(way(&proxies, url), "", "{entries:?} excepts {url}");
                }
                for url in others {
                    assert_eq!(way(&proxies, url), "proxy", "{entries:?} does not except {url}");
                }
            }
        }
        for ignored in ["", ",", "10.0.0.0/40", "x/8", "hub.co:port", "http:"] {
            let proxies = proxies(&[("ALL_PROXY", "proxy:1"), ("NO_PROXY", ignored)]);
            assert_eq!(way(&proxies, "http://hub.co"), "proxy", "{ignored:?}");
        }
    }
}
