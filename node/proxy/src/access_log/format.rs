//! A line in NGINX's words: `MainLogFormat`.
//!
//! Always `-` here (empty with `escape=json` and `escape=none`), since nobody counts or
//! keeps it: `$request_length`, `$connection`, `$connection_requests`, `$server_addr`,
//! `$server_port`, `$upstream_connect_time`, `$proxy_protocol_addr`,
//! `$realip_remote_addr`, `$ssl_client_verify`, `$ssl_client_s_dn`, and what NGINX has
//! and Dovetail has not. `$bytes_sent` is the body's bytes, as `$body_bytes_sent`. Times
//! are UTC.
//!
//! A value of a client's never ends a line or a quoted string: the default escapes both,
//! and no header or target with a line break gets this far.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use dovetail_config::access_format::{Escape, Format, InvalidFormat, Piece, Variable};
use dovetail_routing::names::CookieName;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use http::{Uri, Version};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::Line;
use crate::headers::X_FORWARDED_FOR;
use crate::{sticky, target};

const TIME_LOCAL: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
const TIME_ISO8601: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]+00:00");

/// A format, and what it wants to know of each request.
#[derive(Debug)]
pub struct LineFormat {
    escape: Escape,
    parts: Vec<Part>,
    /// Headers of requests and responses, and cookies, that it names.
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
    cookies: Vec<CookieName>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Variable(Variable),
    /// Positions in what was captured.
    Request(usize),
    Response(usize),
    Cookie(usize),
    /// The name in the `Authorization` header at a position.
    User(usize),
    /// The list at a position, and the client.
    AddForwardedFor(usize),
}

/// What a format wants to know of the headers of one request, by its positions.
#[derive(Debug, Default)]
pub struct Captured {
    request: Vec<Option<HeaderValue>>,
    response: Vec<Option<HeaderValue>>,
    cookies: Vec<Option<Box<[u8]>>>,
}

impl LineFormat {
    /// Reads a format.
    pub fn parse(text: &str) -> Result<Self, InvalidFormat> {
        let format = Format::parse(text)?;
        let mut this = Self {
            escape: format.escape,
            parts: Vec::new(),
            request: Vec::new(),
            response: Vec::new(),
            cookies: Vec::new(),
        };
        for piece in format.pieces {
            let part = match piece {
                Piece::Text(text) => Part::Text(text),
                Piece::Variable(variable) => this.part(variable),
            };
            this.parts.push(part);
        }
        Ok(this)
    }

    fn part(&mut self, variable: Variable) -> Part {
        let named = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        match &variable {
            Variable::RequestHeader(name) => {
                named(name).map(|name| Part::Request(place(&mut self.request, name)))
            }
            Variable::ResponseHeader(name) => {
                named(name).map(|name| Part::Response(place(&mut self.response, name)))
            }
            Variable::Cookie(name) => {
                name.parse().ok().map(|name| Part::Cookie(place(&mut self.cookies, name)))
            }
            Variable::ContentLength => {
                Some(Part::Request(place(&mut self.request, CONTENT_LENGTH)))
            }
            Variable::ContentType => Some(Part::Request(place(&mut self.request, CONTENT_TYPE))),
            Variable::RemoteUser => Some(Part::User(place(&mut self.request, AUTHORIZATION))),
            Variable::ProxyAddXForwardedFor => {
                Some(Part::AddForwardedFor(place(&mut self.request, X_FORWARDED_FOR)))
            }
            _ => None,
        }
        .unwrap_or(Part::Variable(variable))
    }

    /// What it wants to know of a request, if it is anything.
    pub fn capture(&self, headers: &HeaderMap) -> Option<Box<Captured>> {
        if self.request.is_empty() && self.response.is_empty() && self.cookies.is_empty() {
            return None;
        }
        let cookie = |name| sticky::cookie(headers, name).map(Into::into);
        Some(Box::new(Captured {
            request: self.request.iter().map(|name| joined(headers, name)).collect(),
            response: Vec::new(),
            cookies: self.cookies.iter().map(cookie).collect(),
        }))
    }

    /// Adds what it wants to know of the response.
    pub fn capture_response(&self, captured: &mut Captured, headers: &HeaderMap) {
        captured.response = self.response.iter().map(|name| joined(headers, name)).collect();
    }

    /// Prints a line.
    pub(super) fn append(&self, batch: &mut Vec<u8>, line: &Line, proxy: &str) {
        let mut out = Out { escape: self.escape, batch };
        let captured = line.captured.as_deref();
        let request = |at: &usize| captured?.request.get(*at)?.as_ref().map(HeaderValue::as_bytes);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.batch.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => print(&mut out, variable, line, proxy),
                Part::Request(at) => out.value(request(at)),
                Part::Response(at) => {
                    let value = captured.and_then(|captured| captured.response.get(*at)?.as_ref());
                    out.value(value.map(HeaderValue::as_bytes));
                }
                Part::Cookie(at) => {
                    out.value(captured.and_then(|captured| captured.cookies.get(*at)?.as_deref()));
                }
                Part::User(at) => out.value(request(at).and_then(user).as_deref()),
                Part::AddForwardedFor(at) => {
                    let client = line.client.ip().to_string();
                    let before = request(at).map(|list| [list, b", "].concat());
                    out.value(Some(&[&before.unwrap_or_default(), client.as_bytes()].concat()));
                }
            }
        }
        out.batch.push(b'\n');
    }
}

/// The position of a value, which is added unless it is there.
fn place<T: PartialEq>(known: &mut Vec<T>, value: T) -> usize {
    known.iter().position(|known| *known == value).unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    })
}

/// The value of a header; of several, all of them as one list.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(first.clone());
    }
    let all: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
}

/// The name in an `Authorization` header of HTTP's basic authentication.
fn user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim_ascii()).ok()?;
    let name = pair.split(|&byte| byte == b':').next()?;
    (!name.is_empty()).then(|| name.to_vec())
}

/// A batch of lines, to which values are added in their escaped form.
struct Out<'b> {
    escape: Escape,
    batch: &'b mut Vec<u8>,
}

impl Out<'_> {
    fn value(&mut self, value: Option<&[u8]>) {
        let Some(value) = value else {
            if self.escape == Escape::Default {
                self.batch.push(b'-');
            }
            return;
        };
        match self.escape {
            Escape::None => self.batch.extend_from_slice(value),
            Escape::Default => {
                for &byte in value {
                    match byte {
                        b'"' | b'\\' | ..=31 | 127.. => {
                            // Writing to memory does not fail.
                            let _ = write!(self.batch, "\\x{byte:02X}");
                        }
                        byte => self.batch.push(byte),
                    }
                }
            }
            Escape::Json => {
                let text = String::from_utf8_lossy(value);
                if let Ok(quoted) = serde_json::to_string(&text) {
                    self.batch.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
                }
            }
        }
    }

    fn text(&mut self, text: impl AsRef<str>) {
        self.value(Some(text.as_ref().as_bytes()));
    }

    fn maybe(&mut self, text: Option<impl AsRef<str>>) {
        self.value(text.as_ref().map(|text| text.as_ref().as_bytes()));
    }
}

fn print(out: &mut Out<'_>, variable: &Variable, line: &Line, proxy: &str) {
    let host = line.host.as_ref().and_then(|host| host.to_str().ok());
    match variable {
        Variable::RemoteAddr => out.text(line.client.ip().to_string()),
        Variable::RemotePort => {
            let port = line.client.port();
            out.maybe((port != 0).then(|| port.to_string()));
        }
        Variable::TimeLocal => out.text(utc(line.time, TIME_LOCAL)),
        Variable::TimeIso8601 => out.text(utc(line.time, TIME_ISO8601)),
        Variable::Msec => {
            let since = line.time.duration_since(SystemTime::UNIX_EPOCH);
            out.text(seconds(since.unwrap_or_default()));
        }
        Variable::Request => {
            let (method, target) = (&line.method, target_of(&line.uri));
            out.text(format!("{method} {target} {}", protocol(line.version)));
        }
        Variable::RequestMethod => out.text(line.method.as_str()),
        Variable::RequestUri => out.text(target_of(&line.uri)),
        Variable::Uri => out.text(target::path(&line.uri)),
        Variable::Args => out.maybe(line.uri.query()),
        Variable::IsArgs => out.text(if line.uri.query().is_some() { "?" } else { "" }),
        Variable::RequestId => out.value(line.request_id.as_ref().map(HeaderValue::as_bytes)),
        Variable::RequestTime => out.text(seconds(line.duration)),
        Variable::Status => out.text(format!("{:03}", line.status)),
        Variable::BodyBytesSent | Variable::BytesSent => out.text(line.bytes.to_string()),
        Variable::Host => out.maybe(host.and_then(|host| target::host_name(host).ok())),
        Variable::ServerName => {
            out.maybe(line.entry.as_ref().map(|entry| entry.route.host.to_string()));
        }
        Variable::ServerProtocol => out.text(protocol(line.version)),
        Variable::Scheme => out.text(if line.https { "https" } else { "http" }),
        Variable::Https => out.text(if line.https { "on" } else { "" }),
        Variable::Hostname => out.text(proxy),
        Variable::UpstreamAddr => {
            out.maybe(line.candidate().map(|c| c.upstream.address.to_string()));
        }
        Variable::UpstreamStatus => out.maybe(line.upstream_status.map(|s| s.to_string())),
        Variable::UpstreamHeaderTime => out.maybe(line.until_head.map(seconds)),
        Variable::UpstreamResponseTime => {
            out.maybe(line.until_head.is_some().then(|| seconds(line.duration)));
        }
        Variable::SslProtocol => out.maybe(line.tls.as_ref().map(|tls| tls.protocol)),
        Variable::SslCipher => out.maybe(line.tls.as_ref().and_then(|tls| tls.cipher.as_deref())),
        Variable::SslServerName => {
            out.maybe(line.tls.as_ref().and_then(|tls| tls.server_name.as_deref()));
        }
        Variable::Service => out.maybe(line.service().map(|service| &service.name)),
        Variable::Task => {
            let task = line.candidate().and_then(|candidate| candidate.upstream.task.as_ref());
            out.maybe(task.map(|task| task.as_str()));
        }
        Variable::Route => {
            let route = line.entry.as_ref().map(|entry| &entry.route);
            out.maybe(route.map(|route| format!("{}{}", route.host, route.path)));
        }
        Variable::Revision => out.maybe(line.revision.map(|revision| revision.to_string())),
        Variable::Attempts => out.text(line.attempts.to_string()),
        Variable::Error => out.maybe(line.error),
        _ => out.value(None),
    }
}

fn utc(time: SystemTime, format: &[BorrowedFormatItem<'_>]) -> String {
    OffsetDateTime::from(time).format(format).unwrap_or_default()
}

fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

fn target_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", |target| target.as_str())
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
