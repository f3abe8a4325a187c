//! Plain HTTP through a proxy: requests with the whole URL in their first line.
//!
//! The HTTP client opens a tunnel to every server behind a proxy, but most proxies allow tunnels to port 443 only. So a
//! resolver directs every connection to the proxy, and a transport completes the first line of each request.

use super::proxy::Route;
use base64::prelude::{BASE64_STANDARD, Engine};
use std::io::{Read, Write};
use ureq::config::Config;
use ureq::http::{HeaderValue, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};
use ureq::{Agent, Error, Proxy};

/// An HTTP client that sends all requests to the proxy of `route`.
pub(super) fn agent(config: Config, route: &Route) -> Agent {
    let connector = DefaultConnector::default().chain(Complete);
    Agent::with_parts(config, connector, ToProxy(route.proxy.clone()))
}

/// The value of `Proxy-Authorization`, if the proxy's URL has a user.
pub(super) fn authorization(route: &Route) -> Option<HeaderValue> {
    let (name, password) = (route.proxy.username()?, route.proxy.password().unwrap_or_default());
    let credentials = BASE64_STANDARD.encode(format!("{name}:{password}"));
    let mut header = HeaderValue::try_from(format!("Basic {credentials}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// A resolver that returns the address of the proxy for every server.
#[derive(Debug)]
struct ToProxy(Proxy);

impl Resolver for ToProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let uri = format!("http://{}:{}", self.0.host(), self.0.port());
        let uri: Uri = uri.parse().map_err(|_| Error::InvalidProxyUrl)?;
        DefaultResolver::default().resolve(&uri, config, timeout)
    }
}

/// A connector that wraps a connection to complete its requests.
#[derive(Debug)]
struct Complete;

impl<In: Transport> Connector<In> for Complete {
    type Out = Completed<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let config = details.config;
        Ok(chained.map(|connection| Completed {
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            connection: TransportAdapter::new(connection, details.current_time.clone()),
            server: details.uri.authority().map_or(String::new(), |server| server.to_string()),
        }))
    }
}

struct Completed<T: Transport> {
    buffers: LazyBuffers,
    connection: TransportAdapter<T>,
    server: String,
}

impl<T: Transport> std::fmt::Debug for Completed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completed").field("server", &self.server).finish_non_exhaustive()
    }
}

impl<T: Transport> Transport for Completed<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    /// All requests are GET requests without a body: output that begins with `GET /` is the head of a request.
    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.connection.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        if let Some(rest) = output.strip_prefix(b"GET /") {
            self.connection.write_all(format!("GET http://{}/", self.server).as_bytes())?;
            self.connection.write_all(rest)?;
        } else {
            self.connection.write_all(output)?;
        }
        Ok(self.connection.flush()?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.connection.set_timeout(timeout);
        let n_bytes = self.connection.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(n_bytes);
        Ok(n_bytes > 0)
    }

    fn is_open(&mut self) -> bool {
        self.connection.get_mut().is_open()
    }
}
