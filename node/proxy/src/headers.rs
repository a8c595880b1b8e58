//! Which headers cross the proxy, and which it writes itself.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, Entry, FORWARDED, HOST,
    HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_SERVER: HeaderName = HeaderName::from_static("x-forwarded-server");
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_PROXY_ID: HeaderName = HeaderName::from_static("x-proxy-id");
pub const X_SERVER_INFO: HeaderName = HeaderName::from_static("x-server-info");
pub const X_UPSTREAM_ADDR: HeaderName = HeaderName::from_static("x-upstream-addr");
pub const X_UPSTREAM_RESPONSE_TIME: HeaderName =
    HeaderName::from_static("x-upstream-response-time");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const X_DOVETAIL_ERROR: HeaderName = HeaderName::from_static("x-dovetail-error");

/// A moment as `Date` says it (RFC 9110 §5.6.7).
const DATE_FORMAT: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);
/// Longest request id that is taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Headers that the proxy writes or relies on: `Connection` must not name them away.
const PROTECTED: [HeaderName; 12] = [
    AUTHORIZATION,
    CONTENT_LENGTH,
    COOKIE,
    FORWARDED,
    HOST,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_FORWARDED_PROTO,
    X_REAL_IP,
    X_REQUEST_ID,
];

/// Removes what is about one connection only, and whatever `Connection` names.
///
/// `TE: trailers` survives, since trailers are passed on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(CONNECTION) {
        let mut named = Vec::new();
        for value in connection.remove_entry_mult().1 {
            for token in value.as_bytes().split(|&byte| byte == b',') {
                let token = token.trim_ascii();
                if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close")
                {
                    continue;
                }
                if let Ok(name) = HeaderName::from_bytes(token)
                    && !PROTECTED.contains(&name)
                {
                    named.push(name);
                }
            }
        }
        for name in named {
            if name != TE {
                headers.remove(name);
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    headers.remove(UPGRADE);
    headers.remove(TRANSFER_ENCODING);
    if headers.contains_key(TE) {
        let trailers = headers.get_all(TE).iter().any(|value| {
            value
                .as_bytes()
                .split(|&byte| byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        });
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Whether a request is gRPC, which needs HTTP/2 all the way. gRPC-Web does not, although
/// its content type begins alike.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    const GRPC: &[u8] = b"application/grpc";
    content.len() >= GRPC.len()
        && content[..GRPC.len()].eq_ignore_ascii_case(GRPC)
        && matches!(content.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
}

/// The request id of a client, if it is one that can be logged and passed on.
pub fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    let id = given.next()?;
    let valid = given.next().is_none()
        && (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
        && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b));
    valid.then(|| id.clone())
}

/// A new request id: 32 hexadecimal digits, as NGINX makes them.
pub fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut random = fastrand::u128(..);
    let mut id = [0; 32];
    for digit in &mut id {
        *digit = DIGITS[(random & 15) as usize];
        random >>= 4;
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Joins the cookies of an HTTP/2 request, which may come apart (RFC 9113 §8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// A port as a header value: nearly always the same one, so that is kept.
#[derive(Debug, Default)]
pub struct Ports(RefCell<Option<(u16, HeaderValue)>>);

impl Ports {
    /// The value of this port.
    pub fn value(&self, port: u16) -> HeaderValue {
        let mut kept = self.0.borrow_mut();
        match &*kept {
            Some((known, value)) if *known == port => value.clone(),
            _ => kept.insert((port, HeaderValue::from(port))).1.clone(),
        }
    }
}

/// The time of day as a header value, which is another one every second.
#[derive(Debug, Default)]
pub struct Dates(RefCell<Option<(u64, HeaderValue)>>);

impl Dates {
    /// The value of `Date` now.
    pub fn now(&self) -> HeaderValue {
        self.at(SystemTime::now())
    }

    fn at(&self, now: SystemTime) -> HeaderValue {
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut kept = self.0.borrow_mut();
        match &*kept {
            Some((known, value)) if *known == second => value.clone(),
            _ => {
                let text = OffsetDateTime::from(now).format(DATE_FORMAT).unwrap_or_default();
                let value = HeaderValue::try_from(text);
                let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
                kept.insert((second, value)).1.clone()
            }
        }
    }
}

/// Seconds with three decimals, as NGINX prints them.
pub fn seconds(elapsed: std::time::Duration) -> HeaderValue {
    let ms = elapsed.as_millis();
    let mut text = [b'0'; 24];
    let mut at = text.len();
    let mut rest = ms;
    for place in 0.. {
        if place == 3 {
            at -= 1;
            text[at] = b'.';
        }
        if (place > 3 && rest == 0) || at == 0 {
            break;
        }
        at -= 1;
        text[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    HeaderValue::from_bytes(&text[at..]).unwrap_or_else(|_| HeaderValue::from_static("0.000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a name");
                (name, HeaderValue::from_str(value).expect("a value"))
            })
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn names(headers: &HeaderMap) -> Vec<String> {
        let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_headers_stay_on_their_hop() {
        let mut headers = map(&[
            ("connection", "close, X-One"),
            ("connection", "x-two,host, X-Forwarded-For, authorization, content-length"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("host", "a"),
            ("x-forwarded-for", "1.2.3.4"),
            ("authorization", "Basic x"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            names(&headers),
            [
                "authorization",
                "content-length",
                "host",
                "te",
                "trailer",
                "x-forwarded-for",
                "x-three"
            ]
        );
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn only_a_plain_request_id_is_taken_over() {
        for (given, kept) in [
            (vec!["abc-123"], true),
            (vec!["a b"], false),
            (vec![""], false),
            (vec!["a", "b"], false),
            (vec!["\u{e9}"], false),
        ] {
            let pairs: Vec<_> = given.iter().map(|id| ("x-request-id", *id)).collect();
            assert_eq!(request_id(&map(&pairs)).is_some(), kept, "{given:?}");
        }
        assert!(request_id(&map(&[("x-request-id", &"a".repeat(129))])).is_none());
        let made = new_request_id();
        assert!(made.len() == 32 && made.as_bytes().iter().all(u8::is_ascii_hexdigit));
        assert_ne!(made, new_request_id());
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (content, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&map(&[("content-type", content)])), grpc, "{content:?}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn cookies_that_came_apart_are_one_again() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().count(), 1);
        assert_eq!(headers[COOKIE], "a=1; b=2");
    }

    #[test]
    fn a_date_is_that_of_its_second() {
        let dates = Dates::default();
        for (ms, text) in [
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 GMT"),
        ] {
            assert_eq!(dates.at(UNIX_EPOCH + Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn times_are_seconds_with_milliseconds() {
        for (ms, text) in [(0, "0.000"), (7, "0.007"), (1_234, "1.234"), (61_000, "61.000")] {
            assert_eq!(seconds(Duration::from_millis(ms)), text);
        }
    }
}
