//! Canonical bytes: fixed order, fixed widths, lengths before contents.
//!
//! One value has one form, so that a digest over the bytes is a digest of the
//! value. Integers are big-endian, texts and lists carry a 32-bit length, maps
//! are lists in ascending order of their keys. Reading never trusts a length:
//! it takes no more than the bytes that are there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod types;

pub(crate) use types::{fields, tags};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}: {reason}")]
pub struct InvalidBytes {
    what: &'static str,
    at: usize,
    reason: Box<str>,
}

impl InvalidBytes {
    /// Something wrong with the whole, not with one place.
    pub(crate) fn whole(what: &'static str, reason: impl Into<Box<str>>) -> Self {
        Self { what, at: 0, reason: reason.into() }
    }
}

/// A value with one canonical form.
pub(crate) trait Canonical: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes>;
}

/// Reads canonical bytes from the front.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Short texts that were read lately, each at a place of its own: ids and names come
    /// again and again, and are then shared. Empty before the first.
    texts: Vec<Option<Arc<str>>>,
}

/// Places for texts; one that comes pushes out what was there.
const TEXTS: usize = 1 << 16;
/// Bytes of a text that is looked for among those that were read.
const SHARED_BYTES_MAX: usize = 64;

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, texts: Vec::new() }
    }

    pub(crate) fn invalid(&self, what: &'static str, reason: impl Into<Box<str>>) -> InvalidBytes {
        InvalidBytes { what, at: self.at, reason: reason.into() }
    }

    pub(crate) fn read<T: Canonical>(&mut self) -> Result<T, InvalidBytes> {
        T::read(self)
    }

    /// Refuses bytes after the last field.
    pub(crate) fn end(self) -> Result<(), InvalidBytes> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.invalid("end", format!("{} bytes too many", self.bytes.len() - self.at)))
        }
    }

    fn take(&mut self, what: &'static str, length: usize) -> Result<&'a [u8], InvalidBytes> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => {
                let left = self.bytes.len() - self.at;
                Err(self.invalid(what, format!("needs {length} bytes, {left} are left")))
            }
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], InvalidBytes> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N)?);
        Ok(array)
    }

    /// A length that the bytes left could hold.
    fn length(&mut self, what: &'static str) -> Result<usize, InvalidBytes> {
        let length = self.read::<u32>()? as usize;
        let left = self.bytes.len() - self.at;
        if length > left {
            return Err(self.invalid(what, format!("length {length}, {left} bytes are left")));
        }
        Ok(length)
    }

    /// A byte that says which variant follows.
    pub(crate) fn tag(&mut self, what: &'static str) -> Result<u8, InvalidBytes> {
        Ok(self.array::<1>(what)?[0])
    }
}

/// Writes a length. More than 4 GiB never occurs: entries are limited to far less.
fn write_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).unwrap_or(u32::MAX).write(out);
}

macro_rules! integers {
    ($($integer:ident)*) => {$(
        impl Canonical for $integer {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
                from.array(stringify!($integer)).map(Self::from_be_bytes)
            }
        }
    )*};
}

integers! { u16 u32 u64 }

impl Canonical for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("bool")? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(from.invalid("bool", format!("is {other}"))),
        }
    }
}

impl Canonical for [u8; 32] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        from.array("hash")
    }
}

/// Writes a text without owning it.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    write_length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a text without owning it.
pub(crate) fn read_text<'a>(from: &mut Reader<'a>) -> Result<&'a str, InvalidBytes> {
    let length = from.length("text")?;
    let bytes = from.take("text", length)?;
    std::str::from_utf8(bytes).map_err(|error| from.invalid("text", error.to_string()))
}

impl Canonical for Arc<str> {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self, out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let text = read_text(from)?;
        if text.len() > SHARED_BYTES_MAX {
            return Ok(text.into());
        }
        if from.texts.is_empty() {
            from.texts.resize(TEXTS, None);
        }
        let place = &mut from.texts[place_of(text)];
        match place {
            Some(known) if **known == *text => Ok(Self::clone(known)),
            _ => Ok(Self::clone(place.insert(text.into()))),
        }
    }
}

/// Where a text is looked for (FNV-1a): any spread does, and equal texts come to one place.
fn place_of(text: &str) -> usize {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    usize::try_from((hash >> 32) % TEXTS as u64).unwrap_or_default()
}

impl<T: Canonical> Canonical for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        Ok(if from.read()? { Some(from.read()?) } else { None })
    }
}

impl<A: Canonical, B: Canonical> Canonical for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        Ok((from.read()?, from.read()?))
    }
}

impl<T: Canonical> Canonical for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        self.iter().for_each(|item| item.write(out));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let length = from.length("list")?;
        let mut items = Self::new();
        for _ in 0..length {
            items.push(from.read()?);
        }
        Ok(items)
    }
}

/// Reads the pairs of a map, whose keys must ascend, or two forms would mean one value.
fn read_pairs<K: Canonical + Ord + Clone, V: Canonical>(
    from: &mut Reader<'_>,
    mut insert: impl FnMut(K, V),
) -> Result<(), InvalidBytes> {
    let length = from.length("map")?;
    let mut last: Option<K> = None;
    for _ in 0..length {
        let key: K = from.read()?;
        if last.is_some_and(|last| last >= key) {
            return Err(from.invalid("map", "keys do not ascend"));
        }
        last = Some(key.clone());
        let value = from.read()?;
        insert(key, value);
    }
    Ok(())
}

impl<K: Canonical + Ord + Clone, V: Canonical> Canonical for BTreeMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let mut map = Self::new();
        read_pairs(from, |key, value| {
            map.insert(key, value);
        })?;
        Ok(map)
    }
}

impl<K: Canonical + Ord + Clone, V: Canonical + Clone> Canonical for imbl::OrdMap<K, V> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let mut map = Self::new();
        read_pairs(from, |key, value| {
            map.insert(key, value);
        })?;
        Ok(map)
    }
}

/// A shared value has the form of the value. (Not for every `T`: texts are shared, too.)
macro_rules! shared {
    ($($inner:ty)*) => {$(
        impl $crate::codec::Canonical for std::sync::Arc<$inner> {
            fn write(&self, out: &mut Vec<u8>) {
                $crate::codec::Canonical::write(&**self, out);
            }

            fn read(
                from: &mut $crate::codec::Reader<'_>,
            ) -> Result<Self, $crate::codec::InvalidBytes> {
                from.read().map(std::sync::Arc::new)
            }
        }
    )*};
}
pub(crate) use shared;

impl Canonical for IpAddr {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => {
                out.push(4);
                out.extend_from_slice(&address.octets());
            }
            Self::V6(address) => {
                out.push(6);
                out.extend_from_slice(&address.octets());
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        match from.tag("address")? {
            4 => Ok(Self::V4(Ipv4Addr::from(from.array::<4>("address")?))),
            6 => Ok(Self::V6(Ipv6Addr::from(from.array::<16>("address")?))),
            other => Err(from.invalid("address", format!("is of family {other}"))),
        }
    }
}

impl Canonical for SocketAddr {
    fn write(&self, out: &mut Vec<u8>) {
        self.ip().write(out);
        self.port().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        Ok(Self::new(from.read()?, from.read()?))
    }
}

impl Canonical for Duration {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_secs().write(out);
        self.subsec_nanos().write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, InvalidBytes> {
        let (seconds, nanoseconds): (u64, u32) = from.read()?;
        if nanoseconds >= 1_000_000_000 {
            return Err(from.invalid("duration", format!("{nanoseconds} ns in a second")));
        }
        Ok(Self::new(seconds, nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_comes_again_is_held_once() {
        let long = "x".repeat(SHARED_BYTES_MAX + 1);
        let texts: Vec<Arc<str>> = ["web", "api", "web", &long].map(Arc::from).into();
        let mut bytes = Vec::new();
        texts.write(&mut bytes);
        let read: Vec<Arc<str>> = Reader::new(&bytes).read().expect("as written");
        assert_eq!(read, texts);
        assert!(Arc::ptr_eq(&read[0], &read[2]));
    }
}
