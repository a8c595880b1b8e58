//! Where a redirect leads.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use crate::codec::{Canonical, InvalidBytes, Reader};
use crate::names::{ContextRoot, Host, InvalidName, Port};

/// Where a redirect leads; the request's path and query are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub https: bool,
    /// Host in lower case, with the port that the label gives.
    pub authority: Arc<str>,
    /// Put before the request's path: empty, or a path without a trailing slash.
    pub prefix: Arc<str>,
}

impl Redirect {
    /// The host that it leads to; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        self.parts().0
    }

    /// The port, if it names one.
    pub fn port(&self) -> Option<u16> {
        self.parts().1?.parse().ok()
    }

    fn parts(&self) -> (&str, Option<&str>) {
        match self.authority.rsplit_once(':') {
            // A colon before the bracket belongs to the address.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (&self.authority, None),
        }
    }
}

/// Splits off `http://` or `https://`, and tells which it was.
pub(crate) fn scheme(url: &str) -> (Option<bool>, &str) {
    for (scheme, https) in [("https://", true), ("http://", false)] {
        if let (Some(given), Some(rest)) = (url.get(..scheme.len()), url.get(scheme.len()..))
            && given.eq_ignore_ascii_case(scheme)
        {
            return (Some(https), rest);
        }
    }
    (None, url)
}

impl FromStr for Redirect {
    type Err = InvalidName;

    /// Reads `[http[s]://]HOST[:PORT][/PATH]`; without a scheme it is plain HTTP.
    fn from_str(given: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| Err(InvalidName::new("redirect target", given, reason));
        let (https, rest) = scheme(given);
        if rest.contains("://") {
            return invalid("must be a URL that begins with http:// or https://");
        }
        if rest.contains(['?', '#']) {
            return invalid("must not carry a query or a fragment: the request's own is appended");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = match authority_of(authority) {
            Ok(authority) => authority,
            Err(reason) => return invalid(reason),
        };
        let prefix = match path {
            "" | "/" => "".into(),
            path => match path.parse::<ContextRoot>() {
                Ok(path) => path.as_str().into(),
                Err(error) => return invalid(error.reason()),
            },
        };
        Ok(Self { https: https.unwrap_or(false), authority, prefix })
    }
}

/// The canonical form of `HOST[:PORT]`.
fn authority_of(given: &str) -> Result<Arc<str>, &'static str> {
    let (host, port) = if let Some(rest) = given.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err("has no ] after its IPv6 address");
        };
        let Ok(address) = address.parse::<Ipv6Addr>() else {
            return Err("has no IPv6 address between [ and ]");
        };
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err("has something other than a port after its address"),
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match given.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (given, None),
        };
        let host: Host = host.parse().map_err(|error: InvalidName| error.reason())?;
        (host.to_string(), port)
    };
    Ok(match port {
        None => host.into(),
        Some(port) => {
            let port: Port = port.parse().map_err(|error: InvalidName| error.reason())?;
            format!("{host}:{port}").into()
        }
    })
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl Canonical for Redirect {
    fn write(&self, out: &mut Vec<u8>) {
        self.https.write(out);
        self.authority.write(out);
        self.prefix.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let redirect = Self { https: from.read()?, authority: from.read()?, prefix: from.read()? };
        match redirect.to_string().parse::<Self>() {
            Ok(parsed) if parsed == redirect => Ok(redirect),
            Ok(parsed) => Err(from.invalid("redirect", format!("{redirect} is {parsed}"))),
            Err(error) => Err(from.invalid("redirect", error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_without_query() {
        for (given, parsed) in [
            ("http://new.local", Some("http://new.local")),
            ("HTTPS://New.Local/", Some("https://new.local")),
            ("new.local", Some("http://new.local")),
            ("https://new.local:8443/app/", Some("https://new.local:8443/app")),
            ("https://[2001:DB8::1]:8443", Some("https://[2001:db8::1]:8443")),
            ("https://[::1]/x", Some("https://[::1]/x")),
            ("", None),
            ("https://", None),
            ("ftp://new.local", None),
            ("https://new.local?x=1", None),
            ("https://new.local/#top", None),
            ("https://new.local:0", None),
            ("https://new.local:x", None),
            ("https://anna@new.local", None),
            ("https://new.local/a b", None),
            ("https://new.local/a\r\nx: y", None),
            ("https://[::1]x", None),
            ("https://[::1", None),
            ("//new.local", None),
        ] {
            let redirect = given.parse::<Redirect>().ok();
            assert_eq!(redirect.map(|one| one.to_string()).as_deref(), parsed, "{given:?}");
        }
    }
}
