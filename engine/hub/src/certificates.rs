//! The certificates that servers are checked against: the files that the environment names, or else the system's store.

use crate::error::{Result, fail};
use rustls_native_certs::{CertificateResult, load_certs_from_paths};
use std::path::PathBuf;
use ureq::tls::{Certificate, RootCerts};

/// The root certificates. `named` has files and directories in PEM form with the variables that name them. They replace
/// the system's store, as in `huggingface_hub`.
pub(super) fn roots(named: &[(&'static str, PathBuf)]) -> Result<RootCerts> {
    let mut found = Vec::new();
    for (variable, path) in named {
        let result = match path.is_dir() {
            true => load_certs_from_paths(None, Some(path)),
            // As in OpenSSL, a missing directory counts as one without certificates.
            false if *variable == "SSL_CERT_DIR" => continue,
            false => load_certs_from_paths(Some(path), None),
        };
        let reason = result.errors.first().map_or(String::new(), |error| format!(": {error}"));
        // A directory may also have files that are no certificates.
        let is_good = path.is_dir() || (reason.is_empty() && !result.certs.is_empty());
        if !is_good {
            return Err(fail!(
                Environment,
                "{variable}={}: no certificates can be read from there{reason}. It should be a file in PEM form",
                path.display()
            ));
        }
        found.extend(result.certs);
    }
    if !named.is_empty() {
        let variables: Vec<_> = named.iter().map(|(variable, _)| *variable).collect();
        return match found.is_empty() {
            true => {
                Err(fail!(Environment, "{}: there is no certificate there", variables.join(", ")))
            }
            false => Ok(specific(found)),
        };
    }
    let found = system().certs;
    // A container often has no store: then the certificates of Mozilla's list apply.
    Ok(if found.is_empty() { RootCerts::WebPki } else { specific(found) })
}

fn specific(found: Vec<impl AsRef<[u8]>>) -> RootCerts {
    found.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).into()
}

/// The system's store. `load_native_certs` is not used here, because it takes an empty SSL_CERT_FILE for a path.
#[cfg(all(unix, not(target_os = "macos")))]
fn system() -> CertificateResult {
    let places = openssl_probe::probe();
    let mut all = load_certs_from_paths(places.cert_file.as_deref(), None);
    if all.certs.is_empty() {
        for directory in &places.cert_dir {
            all.certs.extend(load_certs_from_paths(None, Some(directory)).certs);
        }
    }
    all
}

#[cfg(not(all(unix, not(target_os = "macos"))))]
fn system() -> CertificateResult {
    rustls_native_certs::load_native_certs()
}
