//! Labels that say what becomes of TLS on a service's hosts.

use super::intent::Options;
use super::known::{
    CLIENT_CA_CERT, CONTEXT_ROOT, CONTEXT_ROOT_REWRITE, PROTOCOL, SSL_BACKEND, SSL_CERT, SSL_KEY,
    SSL_PASSTHROUGH, STICKY_SESSION_COOKIE,
};
use super::{Asked, Labels};
use crate::names::ContextRoot;
use crate::snapshot::{Certificate, Sticky, Tls};

impl Labels<'_> {
    /// What becomes of TLS, and whether that alone forbids plain HTTP.
    pub(super) fn tls(
        &mut self,
        asked: Option<&Asked>,
        path: Option<&ContextRoot>,
        options: Option<&Options>,
    ) -> Option<(Tls, bool)> {
        let passthrough = if self.has(SSL_PASSTHROUGH) {
            self.boolean(SSL_PASSTHROUGH)
        } else {
            Some(asked.is_some_and(|asked| asked.passthrough))
        };
        let cert = self.secret(SSL_CERT);
        let key = self.secret(SSL_KEY);
        let client_ca = self.secret(CLIENT_CA_CERT);
        if passthrough? {
            let passed = self.passed_through(path, options);
            cert.and(key).and(client_ca)?;
            return passed.map(|()| (Tls::Passthrough, false));
        }
        let mut valid = true;
        for label in [SSL_KEY, CLIENT_CA_CERT] {
            if self.has(label) && !self.has(SSL_CERT) {
                self.refuse(label, format!("needs {SSL_CERT}: without it no TLS ends here"));
                valid = false;
            }
        }
        let (cert, key, client_ca) = (cert?, key?, client_ca?);
        if !valid {
            return None;
        }
        // Plain HTTP would be a way round the client's certificate.
        let ssl_only = client_ca.is_some();
        let certificate = cert.map(|cert| Certificate { cert, key, client_ca });
        Some((certificate.map_or(Tls::None, Tls::Terminate), ssl_only))
    }

    /// Refuses what needs a stream that is decrypted here.
    fn passed_through(
        &mut self,
        path: Option<&ContextRoot>,
        options: Option<&Options>,
    ) -> Option<()> {
        let has_path = path.is_some_and(|path| *path != ContextRoot::root());
        let rewrites = options.is_some_and(|options| options.rewrite);
        let by_cookie = options.is_some_and(|one| matches!(one.sticky, Sticky::Cookie(_)));
        let mut valid = Some(());
        for (label, given) in [
            (SSL_CERT, self.has(SSL_CERT)),
            (SSL_KEY, self.has(SSL_KEY)),
            (CLIENT_CA_CERT, self.has(CLIENT_CA_CERT)),
            (CONTEXT_ROOT, has_path),
            (CONTEXT_ROOT_REWRITE, rewrites),
            (STICKY_SESSION_COOKIE, by_cookie),
        ] {
            if given {
                self.refuse(
                    label,
                    format!("cannot be with {SSL_PASSTHROUGH}: only the service decrypts"),
                );
                valid = None;
            }
        }
        for label in [SSL_BACKEND, PROTOCOL] {
            self.has_no_effect(label, "the stream is passed through as the client sends it");
        }
        valid
    }
}
