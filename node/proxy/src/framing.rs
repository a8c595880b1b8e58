//! Where a client's HTTP/1 requests begin and end, decided strictly and without I/O.
//!
//! hyper parses what it reads with some leniency (a bare LF ends a line, a
//! `Content-Length` beside `Transfer-Encoding` is dropped, `gzip, chunked` counts
//! as chunked). Behind another load balancer each of these is a way to smuggle a
//! request. So every byte passes here first: what does not follow RFC 9112 to the
//! letter is a [`Violation`], and hyper never sees the rest of it.
//!
//! Not here: what a header means for routing ([`crate::target`]), limits on the
//! size of a head (hyper's), names and values of headers (hyper's tokenizer).

/// Digits of a chunk size: 16 hold a `u64`, leading zeros included.
const CHUNK_SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of the extensions of one chunk.
const CHUNK_EXTENSION_BYTES_MAX: u32 = 1_024;
/// Bytes of the trailers of one body.
const TRAILER_BYTES_MAX: usize = 16 * 1_024;
/// Bytes of one line of a head; hyper refuses the head before that.
const LINE_BYTES_MAX: usize = 64 * 1_024;
/// Empty lines that may stand before a request line (RFC 9112 §2.2 asks for one).
const LEADING_LINES_MAX: u8 = 8;

/// Why the bytes cannot be trusted to mean the same to everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a line ends in a bare LF")]
    BareLf,
    #[error("a bare CR stands inside a line")]
    BareCr,
    #[error("a header line starts with white space")]
    Folded,
    #[error("a header line has no name or no colon, or white space before the colon")]
    HeaderName,
    #[error("Content-Length is not one whole number")]
    ContentLength,
    #[error("Content-Length stands beside Transfer-Encoding")]
    BothLengths,
    #[error("Transfer-Encoding is not exactly chunked, or not HTTP/1.1")]
    TransferEncoding,
    #[error("a chunk size or its extension is malformed or too long")]
    ChunkSize,
    #[error("a chunk does not end in CRLF")]
    ChunkEnd,
    #[error("trailers are malformed or longer than 16 KiB")]
    Trailers,
    #[error("a line is longer than 64 KiB")]
    LongLine,
    #[error("too many empty lines before a request")]
    LeadingLines,
}

impl Violation {
    /// A word for the metric label: few, stable.
    pub fn kind(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::Folded => "folded",
            Self::HeaderName => "header_name",
            Self::ContentLength => "content_length",
            Self::BothLengths => "both_lengths",
            Self::TransferEncoding => "transfer_encoding",
            Self::ChunkSize => "chunk_size",
            Self::ChunkEnd => "chunk_end",
            Self::Trailers => "trailers",
            Self::LongLine => "long_line",
            Self::LeadingLines => "leading_lines",
        }
    }
}

/// What a piece of the stream led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All bytes were taken.
    All,
    /// A head that asks for an upgrade ended after this many bytes. What follows
    /// is a request or a tunnel, which only the response decides.
    Upgrade(usize),
    /// The bytes before this one are fine; from here on they are not.
    Refused(usize, Violation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first byte of a request line, after so many empty lines.
    Between(u8),
    Header,
    /// This much of a body of known length is to come.
    Body(u64),
    ChunkSize {
        size: u64,
        digits: u8,
    },
    /// White space after the size: only a semicolon may follow.
    ChunkSpace {
        size: u64,
    },
    ChunkExtension {
        size: u64,
        bytes: u32,
    },
    ChunkSizeLf {
        size: u64,
    },
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    Trailer,
    /// Nothing more is checked: the connection became a tunnel.
    Tunnel,
}

/// What the lines of the current head said about the body.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    http_11: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// The reader's place in one connection's stream of requests.
#[derive(Debug)]
pub struct Framing {
    place: Place,
    head: Head,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    trailer_bytes: usize,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            place: Place::Between(0),
            head: Head::default(),
            partial: Vec::new(),
            trailer_bytes: 0,
        }
    }
}

impl Framing {
    /// Whether the stream stands between two requests.
    pub fn is_between(&self) -> bool {
        matches!(self.place, Place::Between(_)) && self.partial.is_empty()
    }

    /// Whether a head has begun and not ended.
    pub fn is_in_head(&self) -> bool {
        match self.place {
            Place::Between(_) => !self.partial.is_empty(),
            Place::Header => true,
            _ => false,
        }
    }

    /// Whether a body has begun and not ended.
    pub fn is_in_body(&self) -> bool {
        !matches!(self.place, Place::Tunnel) && !self.is_between() && !self.is_in_head()
    }

    /// From here on the stream is opaque: a 101 was sent.
    pub fn tunnel(&mut self) {
        self.place = Place::Tunnel;
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.place {
                Place::Between(_) | Place::Header | Place::Trailer => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        if self.partial.len() + rest.len() > LINE_BYTES_MAX {
                            return Step::Refused(at, Violation::LongLine);
                        }
                        self.partial.extend_from_slice(rest);
                        return Step::All;
                    };
                    match self.line(&rest[..end]) {
                        Ok(false) => at += end + 1,
                        Ok(true) => return Step::Upgrade(at + end + 1),
                        Err(violation) => return Step::Refused(at, violation),
                    }
                }
                Place::Body(left) => {
                    let taken = left.min(rest.len() as u64);
                    at += usize::try_from(taken).unwrap_or(rest.len());
                    self.place = match left - taken {
                        0 => Place::Between(0),
                        left => Place::Body(left),
                    };
                }
                Place::Chunk(left) => {
                    let taken = left.min(rest.len() as u64);
                    at += usize::try_from(taken).unwrap_or(rest.len());
                    self.place = match left - taken {
                        0 => Place::ChunkCr,
                        left => Place::Chunk(left),
                    };
                }
                Place::Tunnel => return Step::All,
                _ => match self.chunk_byte(rest[0]) {
                    Ok(()) => at += 1,
                    Err(violation) => return Step::Refused(at, violation),
                },
            }
        }
        Step::All
    }

    /// One byte of what stands between chunks.
    fn chunk_byte(&mut self, byte: u8) -> Result<(), Violation> {
        self.place = match (self.place, byte) {
            (Place::ChunkSize { size, digits }, b'\r') if digits > 0 => Place::ChunkSizeLf { size },
            (Place::ChunkSize { size, digits }, b';') if digits > 0 => {
                Place::ChunkExtension { size, bytes: 0 }
            }
            (Place::ChunkSize { size, digits }, b' ' | b'\t') if digits > 0 => {
                Place::ChunkSpace { size }
            }
            (Place::ChunkSize { size, digits }, digit) => {
                let value = char::from(digit).to_digit(16).ok_or(Violation::ChunkSize)?;
                if digits == CHUNK_SIZE_DIGITS_MAX || size >> 60 != 0 {
                    return Err(Violation::ChunkSize);
                }
                Place::ChunkSize { size: size << 4 | u64::from(value), digits: digits + 1 }
            }
            (Place::ChunkSpace { size }, b' ' | b'\t') => Place::ChunkSpace { size },
            (Place::ChunkSpace { size }, b';') => Place::ChunkExtension { size, bytes: 0 },
            (Place::ChunkExtension { size, .. }, b'\r') => Place::ChunkSizeLf { size },
            (Place::ChunkExtension { size, bytes }, byte)
                if bytes < CHUNK_EXTENSION_BYTES_MAX
                    && (byte == b'\t' || (byte >= b' ' && byte != 0x7f)) =>
            {
                Place::ChunkExtension { size, bytes: bytes + 1 }
            }
            (Place::ChunkSizeLf { size: 0 }, b'\n') => {
                self.trailer_bytes = 0;
                Place::Trailer
            }
            (Place::ChunkSizeLf { size }, b'\n') => Place::Chunk(size),
            (Place::ChunkCr, b'\r') => Place::ChunkLf,
            (Place::ChunkLf, b'\n') => Place::ChunkSize { size: 0, digits: 0 },
            (Place::ChunkCr | Place::ChunkLf, _) => return Err(Violation::ChunkEnd),
            _ => return Err(Violation::ChunkSize),
        };
        Ok(())
    }

    /// Takes a line without its LF, the beginning of which may be in `partial`.
    fn line(&mut self, rest: &[u8]) -> Result<bool, Violation> {
        if self.partial.is_empty() {
            return self.whole_line(rest);
        }
        let mut line = std::mem::take(&mut self.partial);
        if line.len() + rest.len() > LINE_BYTES_MAX {
            return Err(Violation::LongLine);
        }
        line.extend_from_slice(rest);
        self.whole_line(&line)
    }

    /// Returns whether a head that asks for an upgrade ended.
    fn whole_line(&mut self, line: &[u8]) -> Result<bool, Violation> {
        let line = line.strip_suffix(b"\r").ok_or(Violation::BareLf)?;
        match self.place {
            Place::Between(lines) if line.is_empty() => {
                if lines == LEADING_LINES_MAX {
                    return Err(Violation::LeadingLines);
                }
                self.place = Place::Between(lines + 1);
            }
            Place::Between(_) => {
                if memchr::memchr(b'\r', line).is_some() {
                    return Err(Violation::BareCr);
                }
                self.head = Head { http_11: line.ends_with(b" HTTP/1.1"), ..Head::default() };
                self.place = Place::Header;
            }
            Place::Header if line.is_empty() => return self.end_of_head(),
            Place::Header => self.header(line)?,
            Place::Trailer => {
                self.trailer_bytes += line.len() + 2;
                if self.trailer_bytes > TRAILER_BYTES_MAX {
                    return Err(Violation::Trailers);
                }
                if line.is_empty() {
                    self.place = Place::Between(0);
                } else {
                    split(line).map_err(|_| Violation::Trailers)?;
                }
            }
            // Every other place is handled byte by byte.
            _ => return Err(Violation::ChunkSize),
        }
        Ok(false)
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, value) = split(line)?;
        // By length first: most headers are none of these.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.head.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.head.length.is_some() {
                    return Err(Violation::ContentLength);
                }
                self.head.length = Some(content_length(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let exact = trim(value).eq_ignore_ascii_case(b"chunked");
                if self.head.chunked || !exact || !self.head.http_11 {
                    return Err(Violation::TransferEncoding);
                }
                self.head.chunked = true;
            }
            _ => {}
        }
        if self.head.chunked && self.head.length.is_some() {
            return Err(Violation::BothLengths);
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<bool, Violation> {
        let head = self.head;
        self.place = match (head.chunked, head.length) {
            (true, _) => Place::ChunkSize { size: 0, digits: 0 },
            (false, Some(length)) if length > 0 => Place::Body(length),
            _ => Place::Between(0),
        };
        Ok(head.upgrade && head.http_11 && self.place == Place::Between(0))
    }
}

/// Splits a header line into name and value.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::Folded);
    }
    if memchr::memchr(b'\r', line).is_some() {
        return Err(Violation::BareCr);
    }
    let colon = memchr::memchr(b':', line).ok_or(Violation::HeaderName)?;
    let name = &line[..colon];
    if name.is_empty() || matches!(name.last(), Some(b' ' | b'\t')) {
        return Err(Violation::HeaderName);
    }
    Ok((name, &line[colon + 1..]))
}

/// Without the spaces and tabs around it, and nothing else: a form feed is no white space here.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let digits = trim(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Violation::ContentLength);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Violation::ContentLength)?;
    let length: u64 = text.parse().map_err(|_| Violation::ContentLength)?;
    // hyper keeps the two greatest values for itself.
    if length >= u64::MAX - 1 { Err(Violation::ContentLength) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` whole, then byte by byte: both must lead to the same.
    fn outcome(stream: &[u8]) -> (Step, bool) {
        let mut whole = Framing::default();
        let step = whole.feed(stream);
        let mut pieces = Framing::default();
        let mut refused = None;
        for (at, byte) in stream.iter().enumerate() {
            match pieces.feed(std::slice::from_ref(byte)) {
                Step::All => {}
                Step::Upgrade(1) => return (Step::Upgrade(at + 1), true),
                Step::Upgrade(other) => panic!("an upgrade after {other} of one byte"),
                Step::Refused(_, violation) => {
                    refused = Some(violation);
                    break;
                }
            }
        }
        let whole_refused = match step {
            Step::Refused(_, violation) => Some(violation),
            _ => None,
        };
        assert_eq!(whole_refused, refused, "{:?}", String::from_utf8_lossy(stream));
        (step, whole.is_between())
    }

    #[test]
    fn well_formed_requests_pass_and_end_between_two() {
        for stream in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"POST / HTTP/1.1\r\ncontent-length:\t3 \r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 ;x\r\nabc\r\n0\r\n\r\n",
        ] {
            assert_eq!(outcome(stream), (Step::All, true), "{}", String::from_utf8_lossy(stream));
        }
    }

    #[test]
    fn what_others_might_read_differently_is_refused() {
        use Violation as V;
        let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes();
        let chunked =
            |body: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(2_000));
        for (stream, expected) in [
            (head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), V::BothLengths),
            (head("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), V::BothLengths),
            (head("Transfer-Encoding: gzip, chunked\r\n"), V::TransferEncoding),
            (head("Transfer-Encoding: identity\r\n"), V::TransferEncoding),
            (head("Transfer-Encoding: xchunked\r\n"), V::TransferEncoding),
            (head("Transfer-Encoding: \x0cchunked\r\n"), V::TransferEncoding),
            (
                head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
                V::TransferEncoding,
            ),
            (
                b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                V::TransferEncoding,
            ),
            (head("Content-Length: 3\r\nContent-Length: 3\r\n"), V::ContentLength),
            (head("Content-Length: 3, 3\r\n"), V::ContentLength),
            (head("Content-Length: +3\r\n"), V::ContentLength),
            (head("Content-Length: -1\r\n"), V::ContentLength),
            (head("Content-Length: 0x3\r\n"), V::ContentLength),
            (head("Content-Length:\r\n"), V::ContentLength),
            (head("Content-Length: 18446744073709551616\r\n"), V::ContentLength),
            (head("Content-Length: 18446744073709551615\r\n"), V::ContentLength),
            (head("A: b\r\n c\r\n"), V::Folded),
            (head("A : b\r\n"), V::HeaderName),
            (head(": b\r\n"), V::HeaderName),
            (head("no colon\r\n"), V::HeaderName),
            (head("A: b\rc\r\n"), V::BareCr),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n".to_vec(), V::Folded),
            (b"GET / HTTP/1.1\nHost: a\n\n".to_vec(), V::BareLf),
            (head("A: b\n"), V::BareLf),
            (b"\nGET / HTTP/1.1\r\n\r\n".to_vec(), V::BareLf),
            (b"\r\n".repeat(9), V::LeadingLines),
            (chunked("x\r\n").into(), V::ChunkSize),
            (chunked("\r\n").into(), V::ChunkSize),
            (chunked("-3\r\nabc\r\n").into(), V::ChunkSize),
            (chunked("0x3\r\nabc\r\n").into(), V::ChunkSize),
            (chunked("3 \r\nabc\r\n").into(), V::ChunkSize),
            (chunked("3\nabc\r\n").into(), V::ChunkSize),
            (chunked("11111111111111111\r\n").into(), V::ChunkSize),
            (chunked("00000000000000003\r\n").into(), V::ChunkSize),
            (chunked("3;a\nb\r\nabc\r\n").into(), V::ChunkSize),
            (chunked(&long).into(), V::ChunkSize),
            (chunked("3\r\nabcd\r\n").into(), V::ChunkEnd),
            (chunked("3\r\nabc\n0\r\n\r\n").into(), V::ChunkEnd),
            (chunked("0\r\nA b\r\n\r\n").into(), V::Trailers),
            (chunked("0\r\nA: b\n\r\n").into(), V::BareLf),
        ] {
            let (step, _) = outcome(&stream);
            let Step::Refused(_, violation) = step else {
                panic!("{:?} passed: {step:?}", String::from_utf8_lossy(&stream));
            };
            assert_eq!(violation, expected, "{:?}", String::from_utf8_lossy(&stream));
        }
    }

    #[test]
    fn bytes_behind_an_upgrade_wait_for_the_response() {
        let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        let mut stream = head.to_vec();
        stream.extend_from_slice(b"\x81\x05hello");
        assert_eq!(Framing::default().feed(&stream), Step::Upgrade(head.len()));
        // With a body there is no tunnel to wait for.
        let body = b"POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(Framing::default().feed(body), Step::All);
        let old = b"GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(Framing::default().feed(old), Step::All);
    }

    #[test]
    fn the_place_in_the_stream_is_known() {
        let mut framing = Framing::default();
        assert!(framing.is_between());
        framing.feed(b"PO");
        assert!(framing.is_in_head() && !framing.is_between());
        framing.feed(b"ST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na");
        assert!(framing.is_in_body() && !framing.is_in_head());
        framing.feed(b"b");
        assert!(framing.is_between());
    }
}
