//! The HTTP client of the hub: proxies, certificates, redirects, and repeated attempts.

use super::failure::{FetchFailure, asks_for_a_user, connection};
use super::proxy::Route;
use super::refusal::Refusal;
use super::settings::Network;
use super::{certificates, forward};
use crate::error::{HubError, Or, Reason, Result, Within, fail};
use std::cell::{OnceCell, RefCell};
use std::thread;
use std::time::Duration;
use ureq::config::AutoHeaderValue;
use ureq::http::uri::Authority;
use ureq::http::{HeaderValue, Response, StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// Most attempts in a row without progress. `PAUSE` follows the first failure and doubles with each further one.
pub(super) const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const MOST_REDIRECTS: usize = 10;
/// Longest document, longer than the listing of any repository.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// An HTTP client with the user's access token.
pub(super) struct Client<'a> {
    network: &'a Network,
    authorization: Option<HeaderValue>,
    /// One agent for each way that a request has taken.
    agents: RefCell<Vec<(Way, Agent)>>,
    /// The root certificates, read before the first connection that uses TLS.
    roots: OnceCell<RootCerts>,
}

/// The settings of a connection to a server.
#[derive(Clone, PartialEq, Eq)]
struct Way {
    route: Option<Route>,
    is_forwarded: bool,
    is_secure: bool,
}

impl<'a> Client<'a> {
    pub(super) fn new(network: &'a Network) -> Result<Self> {
        let authorization = network.token.header()?;
        Ok(Self { network, authorization, agents: RefCell::default(), roots: OnceCell::new() })
    }

    /// Fetches a small document.
    pub(super) fn get_text(&self, url: &str) -> Result<String> {
        retry(|| {
            let response = self.get(url, 0, self.network.metadata_timeout)?;
            let body = response.into_body().into_with_config().limit(MAX_TEXT_BYTES);
            let text = body.read_to_string();
            text.or_fail(HubError::Network, || url.to_owned()).map_err(FetchFailure::Passing)
        })
    }

    /// Requests a file from byte `from` on.
    pub(super) fn get_file(&self, url: &str, from: u64) -> Result<Response<Body>, FetchFailure> {
        self.get(url, from, self.network.download_timeout)
    }

    /// Sends a request and follows redirects. The client does not follow them itself: another server may need another
    /// proxy, and must not get the token.
    fn get(
        &self,
        url: &str,
        from: u64,
        patience: Duration,
    ) -> Result<Response<Body>, FetchFailure> {
        let parsed = url.parse::<Uri>();
        let mut uri = parsed.or_fail(HubError::Environment, || format!("{url}: this is no URL"))?;
        let hub = uri.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.ask(&uri, is_same(&hub, &uri), from, patience)?;
            if !response.status().is_redirection() {
                return answer(&uri, &hub, response);
            }
            uri = location(&uri, &response).within(|| uri.to_string())?;
        }
        Err(fail!(Content, "{url}: more than {MOST_REDIRECTS} redirects").into())
    }

    fn ask(
        &self,
        uri: &Uri,
        is_hub: bool,
        from: u64,
        patience: Duration,
    ) -> Result<Response<Body>, FetchFailure> {
        let route = self.network.proxies.route(uri);
        let agent = self.agent(uri, route)?;
        // A range of a compressed answer would have other offsets.
        let mut request = agent.get(uri).header(header::ACCEPT_ENCODING, "identity");
        if let Some(authorization) = self.authorization.as_ref().filter(|_| is_hub) {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(route) = route.filter(|route| route.forwards(uri))
            && let Some(authorization) = forward::authorization(route)
        {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let request = request.config().timeout_per_read(Some(patience)).build();
        let response = request.call().map_err(|error| connection(error, uri, route))?;
        match (response.status(), route) {
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, Some(route)) => {
                Err(FetchFailure::Final(asks_for_a_user(route)))
            }
            _ => Ok(response),
        }
    }

    fn agent(&self, uri: &Uri, route: Option<&Route>) -> Result<Agent> {
        let is_https = |uri: &Uri| uri.scheme_str() == Some("https");
        let way = Way {
            route: route.cloned(),
            is_forwarded: route.is_some_and(|route| route.forwards(uri)),
            is_secure: is_https(uri) || route.is_some_and(|route| is_https(route.proxy.uri())),
        };
        let mut agents = self.agents.borrow_mut();
        if let Some((_, agent)) = agents.iter().find(|(other, _)| *other == way) {
            return Ok(agent.clone());
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_redirects(0)
            .user_agent(AutoHeaderValue::Provided(
                concat!("galley/", env!("CARGO_PKG_VERSION")).to_owned().into(),
            ))
            .proxy(route.filter(|_| !way.is_forwarded).map(|route| route.proxy.clone()));
        if way.is_secure {
            let roots = match self.roots.get() {
                Some(roots) => roots.clone(),
                None => {
                    let roots = certificates::roots(&self.network.certificates)?;
                    self.roots.get_or_init(|| roots).clone()
                }
            };
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let agent = match route.filter(|_| way.is_forwarded) {
            Some(route) => forward::agent(config.build(), route),
            None => config.build().new_agent(),
        };
        agents.push((way, agent.clone()));
        Ok(agent)
    }
}

/// Turns every answer without a usable body into a failure.
fn answer(uri: &Uri, hub: &Uri, response: Response<Body>) -> Result<Response<Body>, FetchFailure> {
    let code = response.status();
    if code.is_success() || code == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(response);
    }
    let explained = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
    if explained.contains(&code) {
        let host = uri.host().filter(|_| !is_same(hub, uri));
        let refusal = Refusal::of(&response, host);
        let reason = Reason::new(refusal.to_string()).because(refusal);
        return Err(FetchFailure::Final(HubError::Refused(reason)));
    }
    let error = fail!(Network, "{uri}: the server answers {code}");
    let is_busy = code.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&code);
    Err(if is_busy { FetchFailure::Passing(error) } else { FetchFailure::Final(error) })
}

/// Whether `next` may get the token of `first`: it is the same server, or the same host after an upgrade to HTTPS.
fn is_same(first: &Uri, next: &Uri) -> bool {
    let port = |uri: &Uri| match (uri.port_u16(), uri.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("https")) => 443,
        (None, _) => 80,
    };
    let (from, to) = (first.scheme_str(), next.scheme_str());
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    let is_upgrade = from == Some("http") && to == Some("https");
    let by_default = is_upgrade && (port(first), port(next)) == (80, 443);
    host(first) == host(next) && ((from == to && port(first) == port(next)) || by_default)
}

/// The URL that a redirect names.
fn location(from: &Uri, response: &Response<Body>) -> Result<Uri> {
    let location = response.headers().get(header::LOCATION);
    let location = location.or_fail(HubError::Content, || "a redirect to nowhere".into())?;
    let location = location.to_str();
    let location =
        location.or_fail(HubError::Content, || "a redirect to a text that is no URL".into())?;
    let scheme = from.scheme_str().unwrap_or("https");
    let server = from.authority().map_or("", Authority::as_str);
    let url = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{server}{location}")
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{server}{directory}/{location}")
    };
    let uri = url.parse::<Uri>().or_fail(HubError::Content, || format!("a redirect to {url}"))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    match is_http {
        true => Ok(uri),
        false => Err(fail!(Content, "a redirect to {url}, which is not HTTP")),
    }
}

/// Repeats `attempt` after failures that may be temporary.
pub(super) fn retry<T>(mut attempt: impl FnMut() -> Result<T, FetchFailure>) -> Result<T> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(FetchFailure::Final(error)) => return Err(error),
            Err(FetchFailure::Interrupted) => failures = 1,
            Err(FetchFailure::Passing(error)) => {
                failures += 1;
                if failures == ATTEMPTS {
                    return Err(error);
                }
            }
        }
        thread::sleep(PAUSE * 2_u32.pow(failures - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_where_its_location_says() {
        let from: Uri = "https://hub.co:8443/a/b?c".parse().unwrap();
        let cases = [
            ("/x/y?z=1", "https://hub.co:8443/x/y?z=1"),
            ("x", "https://hub.co:8443/a/x"),
            ("//cdn.co/x", "https://cdn.co/x"),
            ("http://cdn.co:81/x", "http://cdn.co:81/x"),
        ];
        let redirect = |location: &str| {
            Response::builder()
                .header(header::LOCATION, location)
                .body(Body::builder().data(""))
                .unwrap()
        };
        for (to, url) in cases {
            assert_eq!(location(&from, &redirect(to)).unwrap().to_string(), url);
        }
        for bad in ["ftp://cdn.co/x", "file:///etc/passwd", "https://"] {
            assert!(location(&from, &redirect(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_token_goes_to_the_same_server_only() {
        let is_same = |a: &str, b: &str| is_same(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(is_same("https://hub.co/a", "https://HUB.co:443/b"));
        assert!(is_same("http://hub.co", "https://hub.co"));
        assert!(!is_same("https://hub.co", "http://hub.co"));
        assert!(!is_same("https://hub.co", "https://hub.co:444"));
        assert!(!is_same("http://hub.co:8080", "https://hub.co:8443"));
        assert!(!is_same("https://hub.co", "https://cdn.hub.co"));
    }
}
