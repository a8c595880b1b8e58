//! The format of access-log lines in NGINX's words: `'$remote_addr "$request" $status';`.
//!
//! A text that begins with a quote is read as NGINX reads `log_format`: quoted
//! strings that are put together, up to a `;`, with `escape=json` before them if
//! wanted. Any other text is the format as it stands.

use std::str::CharIndices;

/// Longest format, in bytes.
pub const FORMAT_BYTES_MAX: usize = 8 * 1_024;

/// A format that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// What becomes of characters in a variable's value that could break a line.
    pub escape: Escape,
    /// In the order in which they are printed; never empty.
    pub pieces: Vec<Piece>,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Printed as it is.
    Text(String),
    /// Printed as the request has it, `-` when it has none.
    Variable(Variable),
}

/// How values are escaped (NGINX's `escape=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\` and bytes below 32 or above 126 as `\xXX`.
    #[default]
    Default,
    /// As within a string of JSON; a value that is not there is empty.
    Json,
    /// Not at all.
    None,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidFormat {
    /// The byte of the text at which it goes wrong.
    pub at: usize,
    pub reason: String,
}

macro_rules! variables {
    ($($(#[$doc:meta])* $name:literal => $variant:ident)*) => {
        /// What is known of a request, by NGINX's name for it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Variable {
            $($(#[$doc])* $variant,)*
            /// `$http_NAME`: a header of the request, in lower case with hyphens.
            RequestHeader(String),
            /// `$sent_http_NAME`: a header of the response, in lower case with hyphens.
            ResponseHeader(String),
            /// `$cookie_NAME`: a cookie of the request.
            Cookie(String),
            /// Known to nobody here, and so always `-`.
            Unknown(String),
        }

        /// The names without those of headers and cookies.
        pub const NAMES: &[&str] = &[$($name),*];

        fn plain(name: &str) -> Option<Variable> {
            match name {
                "document_uri" => Some(Variable::Uri),
                "query_string" => Some(Variable::Args),
                $($name => Some(Variable::$variant),)*
                _ => None,
            }
        }
    };
}

variables! {
    /// The client's address, without port.
    "remote_addr" => RemoteAddr
    "remote_port" => RemotePort
    /// The user of HTTP's basic authentication.
    "remote_user" => RemoteUser
    /// `23/Nov/2026:15:04:05 +0000`
    "time_local" => TimeLocal
    /// `2026-11-23T15:04:05+00:00`
    "time_iso8601" => TimeIso8601
    /// Seconds since 1970 with milliseconds.
    "msec" => Msec
    /// The request line: method, target, version.
    "request" => Request
    "request_method" => RequestMethod
    /// Path and query as they were received.
    "request_uri" => RequestUri
    /// The path alone.
    "uri" => Uri
    /// The query, without question mark.
    "args" => Args
    /// `?` when there is a query.
    "is_args" => IsArgs
    /// The request's id: the client's `x-request-id`, or the one made here.
    "request_id" => RequestId
    /// Seconds with milliseconds from the first byte to the last.
    "request_time" => RequestTime
    /// Bytes of the request, as far as they are counted.
    "request_length" => RequestLength
    "status" => Status
    /// Bytes of the response's body.
    "body_bytes_sent" => BodyBytesSent
    /// Bytes of the response, as far as they are counted.
    "bytes_sent" => BytesSent
    /// The request's host in lower case, without port.
    "host" => Host
    /// The host of the route that answered.
    "server_name" => ServerName
    "server_addr" => ServerAddr
    "server_port" => ServerPort
    /// `HTTP/1.1`, `HTTP/2.0`
    "server_protocol" => ServerProtocol
    /// `http` or `https`
    "scheme" => Scheme
    /// `on` over TLS.
    "https" => Https
    /// The machine's name.
    "hostname" => Hostname
    "content_length" => ContentLength
    "content_type" => ContentType
    /// The upstream that answered, with its port.
    "upstream_addr" => UpstreamAddr
    "upstream_status" => UpstreamStatus
    /// Seconds with milliseconds until the upstream's answer was read.
    "upstream_response_time" => UpstreamResponseTime
    "upstream_connect_time" => UpstreamConnectTime
    "upstream_header_time" => UpstreamHeaderTime
    /// The connection's number.
    "connection" => Connection
    /// Requests on the connection so far.
    "connection_requests" => ConnectionRequests
    /// `TLSv1.3`
    "ssl_protocol" => SslProtocol
    "ssl_cipher" => SslCipher
    /// The name that the client asked for (SNI).
    "ssl_server_name" => SslServerName
    /// `SUCCESS` or `NONE`
    "ssl_client_verify" => SslClientVerify
    "ssl_client_s_dn" => SslClientSubject
    /// The address of the peer itself, whoever it speaks for.
    "realip_remote_addr" => RealipRemoteAddr
    "proxy_protocol_addr" => ProxyProtocolAddr
    /// `X-Forwarded-For` as it is passed on.
    "proxy_add_x_forwarded_for" => ProxyAddXForwardedFor
    /// Ours: the service that answered.
    "service" => Service
    /// Ours: the task that answered.
    "task" => Task
    /// Ours: host and context root of the route.
    "route" => Route
    /// Ours: the revision of the routes that were in force.
    "revision" => Revision
    /// Ours: how many upstreams were tried.
    "attempts" => Attempts
    /// Ours: what went wrong, in one word.
    "error" => Error
}

impl Variable {
    /// The variable of this name, without its `$`.
    pub fn named(name: &str) -> Self {
        let header = |name: &str| name.to_ascii_lowercase().replace('_', "-");
        if let Some(known) = plain(name) {
            known
        } else if let Some(name) = name.strip_prefix("sent_http_") {
            Self::ResponseHeader(header(name))
        } else if let Some(name) = name.strip_prefix("http_") {
            Self::RequestHeader(header(name))
        } else if let Some(name) = name.strip_prefix("cookie_") {
            Self::Cookie(name.to_owned())
        } else {
            Self::Unknown(name.to_owned())
        }
    }
}

impl Format {
    /// Reads a format.
    pub fn parse(text: &str) -> Result<Self, InvalidFormat> {
        if text.len() > FORMAT_BYTES_MAX {
            let reason =
                format!("the format has {} bytes, at most {FORMAT_BYTES_MAX} are read", text.len());
            return Err(InvalidFormat { at: 0, reason });
        }
        let mut parser = Parser { text, escape: Escape::Default, pieces: Vec::new() };
        let begin = text.len() - text.trim_start().len();
        let quoted = text[begin..].starts_with(['\'', '"']);
        if quoted || text[begin..].starts_with("escape=") {
            parser.words(begin)?;
        } else {
            let format = text.trim_end();
            parser.variables(format.strip_suffix(';').unwrap_or(format), 0)?;
        }
        if parser.pieces.is_empty() {
            return Err(InvalidFormat { at: 0, reason: "the format is empty".to_owned() });
        }
        Ok(Self { escape: parser.escape, pieces: parser.pieces })
    }

    /// The names of variables that nobody here knows.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(Variable::Unknown(name)) => Some(name.as_str()),
            _ => None,
        })
    }
}

struct Parser<'t> {
    text: &'t str,
    escape: Escape,
    pieces: Vec<Piece>,
}

impl Parser<'_> {
    /// NGINX's words: `escape=`, quoted strings, and `;` at the end.
    fn words(&mut self, begin: usize) -> Result<(), InvalidFormat> {
        let mut at = begin;
        let mut first = true;
        while let Some(next) = self.text[at..].chars().next() {
            match next {
                ';' => {
                    let rest = self.text[at + 1..].trim_start();
                    return match rest.is_empty() {
                        true => Ok(()),
                        false => Err(wrong(self.text.len() - rest.len(), "nothing may follow ;")),
                    };
                }
                '\'' | '"' => at = self.quoted(at, next)?,
                _ if next.is_whitespace() => {
                    at += next.len_utf8();
                    continue;
                }
                _ if first => at = self.escape(at)?,
                _ => return Err(wrong(at, "must be a quoted string or ;")),
            }
            first = false;
        }
        Ok(())
    }

    fn escape(&mut self, at: usize) -> Result<usize, InvalidFormat> {
        let rest = &self.text[at..];
        let word = rest.split([' ', '\t', '\r', '\n', ';', '\'', '"']).next().unwrap_or(rest);
        self.escape = match word {
            "escape=default" => Escape::Default,
            "escape=json" => Escape::Json,
            "escape=none" => Escape::None,
            _ => return Err(wrong(at, "must be escape=default, escape=json or escape=none")),
        };
        Ok(at + word.len())
    }

    /// Reads a quoted string; returns where it ended.
    fn quoted(&mut self, at: usize, quote: char) -> Result<usize, InvalidFormat> {
        let mut plain = String::new();
        let mut chars = self.text[at + 1..].char_indices();
        while let Some((position, next)) = chars.next() {
            if next == quote {
                self.variables(&plain, at + 1)?;
                return Ok(at + 1 + position + 1);
            }
            match next {
                '\\' => unescape(&mut chars, &mut plain),
                _ => plain.push(next),
            }
        }
        Err(wrong(at, "the quote is not closed"))
    }

    /// Text with variables. `at` is where it began, for the message.
    fn variables(&mut self, text: &str, at: usize) -> Result<(), InvalidFormat> {
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            self.literal(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            let (name, after) = match rest.strip_prefix('{') {
                Some(braced) => match braced.split_once('}') {
                    Some((name, after)) => (name, after),
                    None => return Err(wrong(at, "${ has no }")),
                },
                None => rest.split_at(rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())),
            };
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(wrong(at, "$ must be followed by the name of a variable"));
            }
            self.pieces.push(Piece::Variable(Variable::named(name)));
            rest = after;
        }
        self.literal(rest);
        Ok(())
    }

    /// Adds text; two in a row become one.
    fn literal(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What a backslash stands for within quotes.
fn unescape(chars: &mut CharIndices<'_>, plain: &mut String) {
    match chars.next().map(|(_, escaped)| escaped) {
        Some('t') => plain.push('\t'),
        Some('n') => plain.push('\n'),
        Some('r') => plain.push('\r'),
        Some(escaped @ ('"' | '\'' | '\\')) => plain.push(escaped),
        Some(other) => plain.extend(['\\', other]),
        None => plain.push('\\'),
    }
}

fn wrong(at: usize, reason: &str) -> InvalidFormat {
    InvalidFormat { at, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn nginxs_words_are_read_as_nginx_reads_them() {
        let nginx = r#"'$remote_addr - "$request" '
                       "${status}ms \"\t\d" ;  "#;
        let format = Format::parse(nginx).expect("a format");
        assert_eq!(
            format.pieces,
            [
                Piece::Variable(Variable::RemoteAddr),
                text(" - \""),
                Piece::Variable(Variable::Request),
                text("\" "),
                Piece::Variable(Variable::Status),
                text("ms \"\t\\d"),
            ]
        );
        assert_eq!(format.escape, Escape::Default);
        let json = Format::parse(r#"escape=json '{"agent":"$http_user_agent"}';"#).expect("json");
        assert_eq!(json.escape, Escape::Json);
        assert_eq!(
            json.pieces[1],
            Piece::Variable(Variable::RequestHeader("user-agent".to_owned()))
        );
    }

    #[test]
    fn a_text_without_quotes_is_the_format_itself() {
        let format = Format::parse("$sent_http_x_id $cookie_Session $query_string $nobody;");
        let format = format.expect("a format");
        assert_eq!(
            format.pieces,
            [
                Piece::Variable(Variable::ResponseHeader("x-id".to_owned())),
                text(" "),
                Piece::Variable(Variable::Cookie("Session".to_owned())),
                text(" "),
                Piece::Variable(Variable::Args),
                text(" "),
                Piece::Variable(Variable::Unknown("nobody".to_owned())),
            ]
        );
        assert_eq!(format.unknown().collect::<Vec<_>>(), ["nobody"]);
    }

    #[test]
    fn a_format_that_nginx_would_refuse_is_refused() {
        for (text, said) in [
            ("", "is empty"),
            ("''", "is empty"),
            ("'$status", "the quote is not closed"),
            ("'$status'; '$status'", "nothing may follow ;"),
            ("'a' b", "must be a quoted string or ;"),
            ("escape=xml '$status'", "must be escape=default"),
            ("cost: $ 5", "the name of a variable"),
            ("${status", "has no }"),
            ("${a b}", "the name of a variable"),
        ] {
            let error = Format::parse(text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(Format::parse(&"x".repeat(FORMAT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn each_name_has_its_variable() {
        for name in NAMES {
            assert!(!matches!(Variable::named(name), Variable::Unknown(_)), "{name}");
        }
    }
}
