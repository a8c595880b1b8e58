//! Frames: a kind, a length, a payload; and the hash over all of them.

use std::io::{self, Read, Write};

use super::ExportError;

pub(super) const MAGIC: &[u8; 8] = b"DVTLLOG1";
/// Bytes of one frame's payload at most: a block that does not compress at all.
const PAYLOAD_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Bytes of a header or a trailer: ids, and a chain of certificates.
const SMALL_BYTES_MAX: usize = 256 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header = 1,
    State = 2,
    Block = 3,
    Trailer = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Header, Self::State, Self::Block, Self::Trailer]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Header | Self::Trailer => SMALL_BYTES_MAX,
            Self::State | Self::Block => PAYLOAD_BYTES_MAX,
        }
    }
}

/// Hashes whatever passes, one way or the other.
#[derive(Debug)]
pub(super) struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashed<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, hasher: blake3::Hasher::new() }
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    pub(super) fn into_inner(self) -> T {
        self.inner
    }
}

impl<W: Write> Hashed<W> {
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.inner.write_all(bytes).map_err(ExportError::Write)?;
        self.hasher.update(bytes);
        Ok(())
    }

    pub(super) fn put_frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ExportError> {
        let length = u32::try_from(payload.len()).ok();
        let Some(length) = length.filter(|_| payload.len() <= kind.bytes_max()) else {
            let reason = format!("a {kind:?} of {} bytes is above the limit", payload.len());
            return Err(ExportError::file(reason));
        };
        self.put(&[kind as u8])?;
        self.put(&length.to_le_bytes())?;
        self.put(payload)
    }
}

impl<R: Read> Hashed<R> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], ExportError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(cut_off)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// The next frame; its length is checked before anything is allocated.
    pub(super) fn take_frame(&mut self) -> Result<(Kind, Vec<u8>), ExportError> {
        let [byte] = self.take()?;
        let Some(kind) = Kind::of(byte) else {
            return Err(ExportError::file(format!("a frame of the unknown kind {byte}")));
        };
        let length = u32::from_le_bytes(self.take()?);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > kind.bytes_max() {
            let reason = format!("a {kind:?} of {length} bytes is above the limit");
            return Err(ExportError::file(reason));
        }
        let mut payload = Vec::new();
        let mut source = self.inner.by_ref().take(length as u64);
        // Grows with what is really there, not with what is promised.
        source.read_to_end(&mut payload).map_err(ExportError::Read)?;
        if payload.len() < length {
            return Err(ExportError::file("the file ends in the middle"));
        }
        self.hasher.update(&payload);
        Ok((kind, payload))
    }

    /// The closing hash, which is of everything before it, and nothing after it.
    pub(super) fn close(&mut self) -> Result<(), ExportError> {
        let due = self.hash();
        let mut found = [0; 32];
        self.inner.read_exact(&mut found).map_err(cut_off)?;
        if found != due {
            return Err(ExportError::file("the closing hash does not fit the file"));
        }
        match self.inner.read(&mut [0]).map_err(ExportError::Read)? {
            0 => Ok(()),
            _ => Err(ExportError::file("something follows the closing hash")),
        }
    }
}

fn cut_off(error: io::Error) -> ExportError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ExportError::file("the file ends in the middle"),
        _ => ExportError::Read(error),
    }
}
