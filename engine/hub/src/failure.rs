//! Failures of the network: whether another attempt makes sense, and how the user can solve the problem.

use super::proxy::Route;
use crate::error::{HubError, Reason, fail};
use rustls::CertificateError;
use std::io::ErrorKind;
use std::path::Path;
use ureq::http::Uri;

/// A failure, by whether another attempt makes sense.
#[derive(Debug)]
pub(super) enum FetchFailure {
    /// A temporary failure, such as a busy server or a lost connection.
    Passing(HubError),
    /// A temporary failure after a part of the file has arrived.
    Interrupted,
    /// Another attempt would fail in the same way.
    Final(HubError),
}

impl From<HubError> for FetchFailure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Explains why there is no answer from `uri`.
pub(super) fn connection(error: ureq::Error, uri: &Uri, route: Option<&Route>) -> FetchFailure {
    let host = uri.host().unwrap_or_default();
    let through = route.map_or(String::new(), |route| format!(" through {route}"));
    let place = || format!("{host} cannot be reached{through}");
    match error {
        ureq::Error::Rustls(error) => FetchFailure::Final(tls(&error, host, &through)),
        ureq::Error::Io(error) => {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            if let Some(error) = inner {
                return FetchFailure::Final(tls(error, host, &through));
            }
            match (error.kind(), route) {
                // The error of the client if a SOCKS proxy refuses the password.
                (ErrorKind::PermissionDenied, Some(route)) => {
                    let reason = Reason::new(user_wanted(route)).because(error);
                    FetchFailure::Final(HubError::Refused(reason))
                }
                (_, Some(_)) => FetchFailure::Passing(fail!(Network, "{}: {error}", place())),
                (_, None) => FetchFailure::Passing(fail!(
                    Network,
                    "{}: {error}. Behind a proxy, set HTTPS_PROXY; for another hub, HF_ENDPOINT",
                    place()
                )),
            }
        }
        ureq::Error::ConnectProxyFailed(reason) => {
            let is_status = |codes: &[&str]| codes.iter().any(|code| reason.contains(code));
            match route {
                Some(route) if is_status(&["407"]) => FetchFailure::Final(asks_for_a_user(route)),
                _ if is_status(&["502", "503", "504"]) => {
                    FetchFailure::Passing(fail!(Network, "{}: {reason}", place()))
                }
                _ => FetchFailure::Final(fail!(Network, "{}: {reason}", place())),
            }
        }
        error @ (ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed) => {
            FetchFailure::Passing(fail!(Network, "{}: {error}", place()))
        }
        // All other errors lie in the request or the answer, and would occur again.
        error => FetchFailure::Final(fail!(Network, "{uri}{through}: {error}")),
    }
}

/// The error if a proxy refuses the user or the password.
pub(super) fn asks_for_a_user(route: &Route) -> HubError {
    HubError::Refused(Reason::new(user_wanted(route)))
}

fn user_wanted(route: &Route) -> String {
    format!(
        "{route} asks for a user and a password that it accepts: write them into {}, as in http://USER:PASSWORD@HOST:PORT \
         (with %40 for an @ in them)",
        route.variable
    )
}

/// The error for a failure of TLS. It is final: another attempt gets the same certificate.
fn tls(error: &rustls::Error, host: &str, through: &str) -> HubError {
    let way_out =
        "set SSL_CERT_FILE to a file with the certificate of the authority that signs it (PEM)";
    let rustls::Error::InvalidCertificate(reason) = error else {
        return fail!(Network, "{host}{through}: no secure connection: {error}");
    };
    match reason {
        CertificateError::UnknownIssuer => fail!(
            Network,
            "{host}{through}: its certificate is signed by an authority that is not known here: {way_out}"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => fail!(
            Network,
            "{host}{through}: its certificate has expired; or the clock of this machine is wrong"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => fail!(
            Network,
            "{host}{through}: its certificate is not valid yet; or the clock of this machine is wrong"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            fail!(Network, "{host}{through}: the certificate there is for another name: {error}")
        }
        _ if error.to_string().contains("CaUsedAsEndEntity") => fail!(
            Network,
            "{host}{through}: its certificate is that of an authority, which servers may not show. Sign a certificate \
             for the server with it, and {way_out}"
        ),
        _ => fail!(Network, "{host}{through}: its certificate is not accepted: {error}; {way_out}"),
    }
}

/// Explains why `path` in the cache cannot be written.
pub(super) fn writing(error: std::io::Error, path: &Path) -> HubError {
    let way_out = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space, or set HF_HOME to a directory on another disk"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "set HF_HOME to a directory that you may write"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file is in the place of a directory: remove it, or set HF_HOME to another directory"
        }
        _ => return HubError::Cache(Reason::new(path.display().to_string()).because(error)),
    };
    fail!(Cache, "{}: {error}; {way_out}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_cannot_be_written_is_explained() {
        let path = Path::new("/cache/x");
        for (kind, words) in [
            (ErrorKind::StorageFull, "another disk"),
            (ErrorKind::ReadOnlyFilesystem, "that you may write"),
            (ErrorKind::PermissionDenied, "that you may write"),
            (ErrorKind::NotADirectory, "in the place of a directory"),
            (ErrorKind::Interrupted, "/cache/x"),
        ] {
            let error = format!("{:#}", writing(kind.into(), path));
            assert!(error.contains(words) && error.contains("/cache/x"), "{error}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let uri = "https://hub.co/x".parse().unwrap();
        let failure = |error| connection(error, &uri, None);
        let io = |kind: ErrorKind| ureq::Error::Io(kind.into());
        for error in [
            io(ErrorKind::ConnectionRefused),
            io(ErrorKind::UnexpectedEof),
            ureq::Error::HostNotFound,
            ureq::Error::ConnectProxyFailed("proxy server responded 503/503".into()),
        ] {
            assert!(matches!(failure(error), FetchFailure::Passing(_)));
        }
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for error in [
            ureq::Error::Io(std::io::Error::new(ErrorKind::InvalidData, unknown.clone())),
            ureq::Error::Rustls(unknown),
            ureq::Error::BadUri("x".into()),
            ureq::Error::TooManyRedirects,
            ureq::Error::ConnectProxyFailed("proxy server responded 403/403".into()),
        ] {
            assert!(matches!(failure(error), FetchFailure::Final(_)));
        }
    }
}
