//! Download of one file over HTTP: it resumes after an interruption, and checks the file before it gets its name.

use super::client::{Client, retry};
use super::failure::{FetchFailure, writing};
use crate::Progress;
use crate::error::{HubError, Or, Result, Within, fail};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use ureq::Body;
use ureq::http::{Response, StatusCode, header};

/// A file to fetch.
pub(super) struct Remote<'a> {
    pub(super) url: String,
    /// The name for error messages and the progress bar.
    pub(super) name: &'a str,
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<&'a str>,
}

/// Fetches `remote` to `blob`. It continues a partial file of an earlier attempt by any process. A lock on the partial
/// file lets one process at a time download.
pub(super) fn fetch(
    client: &Client<'_>,
    remote: &Remote<'_>,
    blob: &Path,
    force: bool,
    on_progress: &dyn Fn(Progress<'_>),
) -> Result<()> {
    if blob.exists() && !force {
        return Ok(());
    }
    let part = blob.with_extension("incomplete");
    let unwritten = |error| writing(error, &part);
    let mut file = loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&part).map_err(unwritten)?;
        file.lock().map_err(unwritten)?;
        // The process that held the lock may have finished the download and renamed the partial file.
        if part.exists() {
            break file;
        }
        if blob.exists() && !force {
            return Ok(());
        }
    };

    let on_bytes = |done| {
        on_progress(Progress::Bytes { file: remote.name, done, total: remote.size });
    };
    on_bytes(0);
    let result = retry(|| attempt(client, remote, &part, &mut file, &on_bytes)).and_then(|()| {
        check(remote, &mut file, &part).inspect_err(|_| drop(fs::remove_file(&part)))
    });
    on_progress(Progress::End { file: remote.name });
    result.within(|| remote.name.to_owned())?;
    file.sync_all().map_err(unwritten)?;
    fs::rename(&part, blob).map_err(|error| writing(error, blob))
}

/// Fetches the rest of the file.
fn attempt(
    client: &Client<'_>,
    remote: &Remote<'_>,
    part: &Path,
    file: &mut File,
    on_bytes: &dyn Fn(u64),
) -> Result<(), FetchFailure> {
    let unwritten = |error| writing(error, part);
    let mut have = file.seek(SeekFrom::End(0)).map_err(unwritten)?;
    if remote.size == Some(have) {
        return Ok(());
    }
    if remote.size.is_some_and(|size| have > size) {
        have = restart(file).map_err(unwritten)?;
    }
    let response = client.get_file(&remote.url, have)?;
    match response.status() {
        StatusCode::RANGE_NOT_SATISFIABLE => {
            restart(file).map_err(unwritten)?;
            let error = fail!(Network, "{}: the part here fits no file there", remote.url);
            return Err(FetchFailure::Passing(error));
        }
        StatusCode::PARTIAL_CONTENT if continues(&response, have) => {}
        // The server ignores the range and sends the whole file.
        _ if have > 0 => have = restart(file).map_err(unwritten)?,
        _ => {}
    }
    on_bytes(have);
    let start = have;
    let failure = |have, error| match have {
        have if have > start => FetchFailure::Interrupted,
        _ => FetchFailure::Passing(error),
    };
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match body.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let error = Err::<(), _>(error).or_fail(HubError::Network, || remote.url.clone());
                return error.map_err(|error| failure(have, error));
            }
        };
        if read == 0 {
            break;
        }
        have += read as u64;
        if remote.size.is_some_and(|size| have > size) {
            return Err(fail!(Content, "{}: longer than the hub said", remote.url).into());
        }
        file.write_all(&buffer[..read]).map_err(unwritten)?;
        on_bytes(have);
    }
    match remote.size {
        Some(size) if have < size => {
            let error = fail!(Network, "{}: cut off after {have} of {size} bytes", remote.url);
            Err(failure(have, error))
        }
        _ => Ok(()),
    }
}

fn restart(file: &mut File) -> io::Result<u64> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(0)
}

/// Whether the body of the answer begins at byte `have` of the file.
fn continues(response: &Response<Body>, have: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

fn check(remote: &Remote<'_>, file: &mut File, part: &Path) -> Result<()> {
    let Some(expected) = remote.sha256 else { return Ok(()) };
    let found = file.seek(SeekFrom::Start(0)).and_then(|_| sha256(file));
    let found = found.map_err(|error| writing(error, part))?;
    if !found.eq_ignore_ascii_case(expected) {
        return Err(fail!(
            Content,
            "damaged on the way: its SHA-256 is {found} and should be {expected}. The damaged file has been deleted; pull \
             again"
        ));
    }
    Ok(())
}

/// The SHA-256 of a file from its position to its end, in hexadecimal.
pub(super) fn sha256(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut io::BufReader::with_capacity(1 << 20, file), &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
