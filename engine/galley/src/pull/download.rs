//! One file over HTTP: resumed where it was cut off, and checked before it gets its name.

use anyhow::{Context, Error, Result, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;
use ureq::config::{AutoHeaderValue, RedirectAuthHeaders};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

/// Attempts in a row that bring nothing, and the pause after the first; it doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// More than the listing of any repository.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// An HTTP client with the user's access token.
pub(super) struct Client {
    agent: Agent,
    authorization: Option<String>,
}

/// An answer that a user can do something about.
pub(super) enum Status<T> {
    Found(T),
    Unauthorized,
    Forbidden,
    NotFound,
}

/// A file to fetch.
pub(super) struct Remote<'a> {
    pub(super) url: String,
    /// As the user knows it.
    pub(super) name: &'a str,
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<&'a str>,
}

/// Whether another attempt makes sense.
#[derive(Debug)]
enum Failure {
    /// A busy server, a lost connection.
    Passing(Error),
    /// The same, after a part of the file has come.
    Interrupted,
    /// It would fail again.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Client {
    pub(super) fn new(token: Option<&str>) -> Self {
        let user_agent = concat!("galley/", env!("CARGO_PKG_VERSION")).to_owned();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(AutoHeaderValue::Provided(user_agent.into()))
            .build()
            .new_agent();
        Self { agent, authorization: token.map(|token| format!("Bearer {token}")) }
    }

    /// A small document.
    pub(super) fn get_text(&self, url: &str) -> Result<Status<String>> {
        retry(|| {
            let response = self.get(url, 0)?;
            match status(url, response)? {
                Status::Found(response) => {
                    let body = response.into_body().into_with_config().limit(MAX_TEXT_BYTES);
                    let text = body.read_to_string().with_context(|| url.to_owned());
                    text.map(Status::Found).map_err(Failure::Passing)
                }
                Status::Unauthorized => Ok(Status::Unauthorized),
                Status::Forbidden => Ok(Status::Forbidden),
                Status::NotFound => Ok(Status::NotFound),
            }
        })
    }

    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        // A compressed answer would have other offsets.
        let mut request = self.agent.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(|error| Failure::Passing(Error::new(error).context(url.to_owned())))
    }
}

/// Sorts out the answers without a body of interest.
fn status(url: &str, response: Response<Body>) -> Result<Status<Response<Body>>, Failure> {
    Ok(match response.status() {
        StatusCode::UNAUTHORIZED => Status::Unauthorized,
        StatusCode::FORBIDDEN => Status::Forbidden,
        StatusCode::NOT_FOUND => Status::NotFound,
        code if code.is_success() || code == StatusCode::RANGE_NOT_SATISFIABLE => {
            Status::Found(response)
        }
        code => {
            let error = anyhow::anyhow!("{url}: the server answers {code}");
            let busy = code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS;
            return Err(if busy { Failure::Passing(error) } else { Failure::Final(error) });
        }
    })
}

fn retry<T>(mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let mut failures = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Interrupted) => failures = 1,
            Err(Failure::Passing(error)) => {
                failures += 1;
                if failures == ATTEMPTS {
                    return Err(error);
                }
            }
        }
        thread::sleep(PAUSE * 2_u32.pow(failures - 1));
    }
}

/// Fetches `remote` to `blob`. A part that is there from an earlier attempt, in this process or
/// another, is continued; two processes take turns.
pub(super) fn fetch(client: &Client, remote: &Remote<'_>, blob: &Path, force: bool) -> Result<()> {
    if blob.exists() && !force {
        return Ok(());
    }
    let part = blob.with_extension("incomplete");
    let part_name = || part.display().to_string();
    let mut file = loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&part).with_context(part_name)?;
        file.lock().with_context(part_name)?;
        // Whoever had the lock may have finished, and given the file its name.
        if part.exists() {
            break file;
        }
        if blob.exists() && !force {
            return Ok(());
        }
    };

    let bar = progress(remote);
    let result = retry(|| attempt(client, remote, &mut file, &bar))
        .and_then(|()| check(remote, &mut file).inspect_err(|_| drop(fs::remove_file(&part))));
    bar.finish_and_clear();
    result.with_context(|| remote.name.to_owned())?;
    file.sync_all().with_context(part_name)?;
    fs::rename(&part, blob).with_context(|| blob.display().to_string())
}

/// Fetches the rest of the file.
fn attempt(
    client: &Client,
    remote: &Remote<'_>,
    file: &mut File,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut have = file.seek(SeekFrom::End(0)).map_err(Error::new)?;
    if remote.size == Some(have) {
        return Ok(());
    }
    if remote.size.is_some_and(|size| have > size) {
        have = restart(file)?;
    }
    let response = match status(&remote.url, client.get(&remote.url, have)?)? {
        Status::Found(response) => response,
        Status::NotFound => return Err(anyhow::anyhow!("{}: it is not there", remote.url).into()),
        Status::Unauthorized | Status::Forbidden => {
            let reason = "access needs a token (HF_TOKEN) of a user who has agreed to its terms";
            return Err(anyhow::anyhow!("{}: {reason}", remote.url).into());
        }
    };
    match response.status() {
        StatusCode::RANGE_NOT_SATISFIABLE => {
            restart(file)?;
            let error = anyhow::anyhow!("{}: the part here fits no file there", remote.url);
            return Err(Failure::Passing(error));
        }
        StatusCode::PARTIAL_CONTENT if continues(&response, have) => {}
        // The whole file, whatever was asked for.
        _ => have = restart(file)?,
    }
    bar.set_position(have);
    let start = have;
    let failure = |have, error| match have {
        have if have > start => Failure::Interrupted,
        _ => Failure::Passing(error),
    };
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match body.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failure(have, error.into())),
        };
        if read == 0 {
            break;
        }
        have += read as u64;
        if remote.size.is_some_and(|size| have > size) {
            return Err(anyhow::anyhow!("{}: longer than the hub said", remote.url).into());
        }
        file.write_all(&buffer[..read]).map_err(Error::new)?;
        bar.set_position(have);
    }
    match remote.size {
        Some(size) if have < size => {
            let error = anyhow::anyhow!("{}: cut off after {have} of {size} bytes", remote.url);
            Err(failure(have, error))
        }
        _ => Ok(()),
    }
}

fn restart(file: &mut File) -> Result<u64> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(0)
}

/// Whether the answer begins at byte `have`.
fn continues(response: &Response<Body>, have: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

fn check(remote: &Remote<'_>, file: &mut File) -> Result<()> {
    let Some(expected) = remote.sha256 else { return Ok(()) };
    file.seek(SeekFrom::Start(0))?;
    let found = sha256(file)?;
    ensure!(
        found.eq_ignore_ascii_case(expected),
        "damaged on the way: its SHA-256 is {found} and should be {expected}. What arrived has been \
         deleted; pull again"
    );
    Ok(())
}

/// The SHA-256 of the rest of a file, in hexadecimal.
pub(super) fn sha256(file: &mut File) -> Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut io::BufReader::with_capacity(1 << 20, file), &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A bar on standard error, if that is a terminal.
fn progress(remote: &Remote<'_>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(remote.size, ProgressDrawTarget::stderr());
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message(remote.name.to_owned())
}
