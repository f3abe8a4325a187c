//! A test hub that misbehaves as its plan says.

use super::pull;
use crate::HubError;
use crate::environment::Environment;
use crate::settings::HubSettings;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of the hub, and its faults.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
    /// Lists a wrong SHA-256 for the files that have one.
    pub(super) wrong_hash: bool,
    /// Closes the connection after this many bytes of a file, this many times.
    pub(super) cut: Option<(usize, usize)>,
    /// Ignores ranges and sends whole files.
    pub(super) whole_files_only: bool,
    /// Answers every request with this status, and with this reason phrase and further headers.
    pub(super) status: Option<(u16, &'static str)>,
    /// Answers requests for files with this status, reason phrase and headers.
    pub(super) files_refused: Option<(u16, &'static str)>,
    /// Redirects requests for files to this server; None means this hub.
    pub(super) cdn: Option<String>,
    /// Lists this commit in place of [`COMMIT`].
    pub(super) commit: Option<&'static str>,
    /// Requires this token.
    pub(super) token: Option<&'static str>,
}

/// A request: its path, and its headers with names in lower case.
pub(super) type Request = (String, HashMap<String, String>);

pub(super) struct Hub {
    pub(super) environment: Environment,
    pub(super) endpoint: String,
    pub(super) cache: PathBuf,
    plan: Arc<Mutex<Plan>>,
    pub(super) requests: Arc<Mutex<Vec<Request>>>,
    n_connections: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    pub(super) fn new(plan: Plan) -> Self {
        Self::start(plan, None)
    }

    /// Starts the hub, with TLS if there is a configuration for it.
    pub(super) fn start(plan: Plan, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().to_owned();
        let mut environment = Environment::default();
        environment.set("GALLEY_CACHE", &cache);
        environment.set("HF_ENDPOINT", &endpoint);
        let (plan, requests) = (Arc::new(Mutex::new(plan)), Arc::default());
        let n_connections = Arc::new(AtomicUsize::new(0));
        let hub = Self {
            environment,
            endpoint,
            cache,
            plan: Arc::clone(&plan),
            requests: Arc::clone(&requests),
            n_connections: Arc::clone(&n_connections),
            _directory: directory,
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                n_connections.fetch_add(1, Ordering::SeqCst);
                let (plan, requests, tls) = (plan.clone(), requests.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => serve(stream, &plan, &requests),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(connection, stream), &plan, &requests);
                    }
                });
            }
        });
        hub
    }

    pub(super) fn settings(&self) -> HubSettings {
        HubSettings::from(&self.environment).unwrap()
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.environment.set(name, value);
    }

    /// The hub's `HOST:PORT`.
    pub(super) fn address(&self) -> &str {
        self.endpoint.split_once("://").unwrap().1
    }

    pub(super) fn with(files: &[(&'static str, &[u8])]) -> Self {
        let files = files.iter().map(|&(name, bytes)| (name, bytes.to_vec())).collect();
        Self::new(Plan { files, ..Plan::default() })
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan.lock().unwrap());
    }

    pub(super) fn pull(&self, source: &str) -> Result<PathBuf, HubError> {
        pull(source, None, false, &self.environment)
    }

    pub(super) fn error(&self, source: &str) -> String {
        format!("{:#}", self.pull(source).unwrap_err())
    }

    /// The number of connections since the last call, including connections without a request.
    pub(super) fn n_connections(&self) -> usize {
        self.n_connections.swap(0, Ordering::SeqCst)
    }

    /// The requests since the last call that have `part` in their path.
    pub(super) fn requests(&self, part: &str) -> Vec<Request> {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        requests.into_iter().filter(|(path, _)| path.contains(part)).collect()
    }
}

/// Starts a server that redirects every request to the same path at `to`. Returns its address.
pub(super) fn redirect(to: String, requests: Arc<Mutex<Vec<Request>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Some(request) = read(&mut stream) else { continue };
            let head = format!("HTTP/1.1 307 Elsewhere\r\nLocation: {to}{}", request.0);
            let end = "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            requests.lock().unwrap().push(request);
            stream.write_all(format!("{head}{end}").as_bytes()).unwrap();
        }
    });
    endpoint
}

fn serve(mut stream: impl Read + Write, plan: &Mutex<Plan>, requests: &Mutex<Vec<Request>>) {
    if let Some(request) = read(&mut stream) {
        requests.lock().unwrap().push(request.clone());
        answer(stream, &mut plan.lock().unwrap(), &request.0, &request.1);
    }
}

/// Reads the head of a request, which has no body.
pub(super) fn read(stream: &mut impl Read) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.map_while(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    });
    Some((path, headers.collect()))
}

fn answer(mut stream: impl Write, plan: &mut Plan, path: &str, headers: &HashMap<String, String>) {
    let mut send = |head: &str, body: &[u8], announced: usize| {
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {announced}\r\nConnection: close");
        let _ = stream.write_all(format!("{head}\r\n\r\n").as_bytes());
        let _ = stream.write_all(body);
        let _ = stream.flush();
    };
    let authorization = headers.get("authorization").map_or("", String::as_str);
    if let Some((status, more)) = plan.status {
        return send(&format!("{status} {more}"), b"", 0);
    }
    if plan.token.is_some_and(|token| authorization != format!("Bearer {token}")) {
        return send("401 Unauthorized", b"", 0);
    }
    if path.starts_with("/api/models/org/name/revision/") {
        let siblings = plan.files.iter().map(|(name, bytes)| {
            let sha256 = if plan.wrong_hash { hash(b"other") } else { hash(bytes) };
            match name.ends_with(".json") {
                true => serde_json::json!({"rfilename": name, "size": bytes.len(),
                                           "blobId": hash(bytes)[..40]}),
                false => serde_json::json!({"rfilename": name, "size": bytes.len(),
                                            "lfs": {"sha256": sha256, "size": bytes.len()}}),
            }
        });
        let siblings: Vec<_> = siblings.collect();
        let body = serde_json::json!({"sha": plan.commit.unwrap_or(COMMIT), "siblings": siblings})
            .to_string();
        return send("200 OK", body.as_bytes(), body.len());
    }
    // The real hub does the same for large files: it redirects to another server, which gets no token.
    let commit = plan.commit.unwrap_or(COMMIT);
    if let Some(name) = path.strip_prefix(&format!("/org/name/resolve/{commit}/")) {
        if let Some((status, more)) = plan.files_refused {
            return send(&format!("{status} {more}"), b"", 0);
        }
        let cdn = plan.cdn.as_deref().unwrap_or_default();
        return send(&format!("302 Found\r\nLocation: {cdn}/cdn/{name}"), b"", 0);
    }
    let name = path.strip_prefix("/cdn/").unwrap_or_default();
    let Some((_, bytes)) = plan.files.iter().find(|(file, _)| *file == name) else {
        return send("404 Not Found", b"", 0);
    };
    let range = headers.get("range").filter(|_| !plan.whole_files_only);
    let start: usize = range.map_or(0, |range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
    });
    if start > bytes.len() {
        return send("416 Range Not Satisfiable", b"", 0);
    }
    let rest = &bytes[start..];
    let sent = match &mut plan.cut {
        Some((at, times)) if *times > 0 => {
            *times -= 1;
            rest.len().min(*at)
        }
        _ => rest.len(),
    };
    let head = match range {
        Some(_) => format!(
            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
            bytes.len() - 1,
            bytes.len()
        ),
        None => "200 OK".to_owned(),
    };
    send(&head, &rest[..sent], rest.len());
}
