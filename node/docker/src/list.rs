//! Reads a list object by object, as its bytes come.
//!
//! A large swarm's list of tasks has hundreds of megabytes: no more of it is held than
//! the object that is not whole yet, and nobody waits until all of it was read. An object
//! is parsed once, when its end was found.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, Value};

/// Longest object that is read: a thousand times what a service with many labels takes.
const OBJECT_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// An object, or one that is not what we expect: its id and what is wrong with it.
pub(crate) type Element<T> = Result<T, (String, String)>;

/// What of a list was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing but white space, or something that is no list.
    #[default]
    Start,
    /// Behind the opening bracket.
    First,
    /// Behind an object.
    Behind,
    /// Behind a comma.
    Next,
    /// Behind the closing bracket.
    End,
}

/// A JSON list on its way. Go prints an empty one as null.
#[derive(Debug, Default)]
pub(crate) struct ListReader {
    place: Place,
    /// What was given and not read yet.
    rest: Vec<u8>,
    end: EndOfObject,
}

/// Looks for the end of an object, over as many pieces as it comes in.
#[derive(Debug, Default)]
struct EndOfObject {
    /// Bytes of the object that were looked at.
    seen: usize,
    /// Brackets of either kind that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl EndOfObject {
    /// The length of the object that `bytes` begin with; `None` while its end is not there.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for byte in &bytes[self.seen..] {
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = self.in_string,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth == 0 {
                return Some(std::mem::take(self).seen);
            }
        }
        None
    }
}

impl ListReader {
    /// Reads on; gives each object that is whole now to `take`, in their order.
    ///
    /// One object that is not what we expect does not spoil the others. One without even
    /// an id does, since nothing could say which it was.
    pub(crate) fn read<T: DeserializeOwned>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Element<T>),
    ) -> Result<(), Error> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        let result = loop {
            at += self.rest[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let Some(byte) = self.rest.get(at) else { break Ok(()) };
            self.place = match (self.place, byte) {
                (Place::Start, b'[') => Place::First,
                // Perhaps null; all of it tells.
                (Place::Start, _) if self.rest.len() - at <= b"null ".len() => break Ok(()),
                (Place::Start, _) => break Err(Error::custom("no list")),
                (Place::First | Place::Behind, b']') => Place::End,
                (Place::Behind, b',') => Place::Next,
                (Place::First | Place::Next, b'{') => {
                    let object = &self.rest[at..];
                    let Some(length) = self.end.find(object) else {
                        break match object.len() {
                            ..=OBJECT_BYTES_MAX => Ok(()),
                            _ => Err(Error::custom("an object of more than 16 MiB")),
                        };
                    };
                    match element(&object[..length]) {
                        Ok(element) => take(element),
                        Err(error) => break Err(error),
                    }
                    at += length;
                    self.place = Place::Behind;
                    continue;
                }
                (place, byte) => {
                    let found = char::from(*byte).escape_default();
                    let behind = match place {
                        Place::First | Place::Next => "where an object is due",
                        _ => "behind an object",
                    };
                    break Err(Error::custom(format!("'{found}' in a list {behind}")));
                }
            };
            at += 1;
        };
        self.rest.drain(..at);
        result
    }

    /// No more bytes come.
    pub(crate) fn end(self) -> Result<(), Error> {
        match self.place {
            Place::End => Ok(()),
            Place::Start => {
                let read = serde_json::from_slice::<Option<Vec<Value>>>(&self.rest)?;
                read.map_or(Ok(()), |_| Err(Error::custom("no list")))
            }
            Place::First | Place::Behind | Place::Next => Err(Error::custom("half a list")),
        }
    }
}

/// A whole object.
fn element<T: DeserializeOwned>(bytes: &[u8]) -> Result<Element<T>, Error> {
    match serde_json::from_slice(bytes) {
        Ok(object) => return Ok(Ok(object)),
        Err(error) if !error.is_data() => return Err(error),
        Err(_) => {}
    }
    let value: Value = serde_json::from_slice(bytes)?;
    let id = value.get("ID").or_else(|| value.get("Id")).and_then(Value::as_str);
    let id = id.map(str::to_owned);
    match (T::deserialize(value), id) {
        (Ok(object), _) => Ok(Ok(object)),
        (Err(error), Some(id)) => Ok(Err((id, error.to_string()))),
        (Err(error), None) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    /// Reads a body in pieces of so many bytes.
    fn read(body: &str, piece: usize) -> Result<Vec<Element<wire::Named>>, Error> {
        let (mut reader, mut read) = (ListReader::default(), Vec::new());
        for piece in body.as_bytes().chunks(piece) {
            reader.read(piece, |element| read.push(element))?;
        }
        reader.end().map(|()| read)
    }

    #[test]
    fn a_list_is_the_same_however_its_bytes_come() {
        let body = r#" [{"ID": "a", "Spec": {"Name": "x]}, ["}} ,{"ID":"b"},
            {"ID": "c", "Spec": 7}, {"ID": "d", "Spec": {"Name": "\"é"},
            "Ulimits": [-1, 1.5, -1e-3, true, null, {"\\": "]}"}]}] "#;
        for piece in 1..=body.len() {
            let read = read(body, piece).expect("a list");
            let told: Vec<_> = read
                .iter()
                .map(|element| match element {
                    Ok(named) => format!("{} {}", named.id, named.spec.name),
                    Err((id, _)) => format!("{id} cannot be read"),
                })
                .collect();
            assert_eq!(told, ["a x]}, [", "b ", "c cannot be read", "d \"é"], "{piece}");
        }
        for (body, piece) in [("null\n", 1), ("[]", 1), (" [ ] ", 2), ("null", 9)] {
            assert!(read(body, piece).expect("an empty list").is_empty(), "{body}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for body in [
            "",
            "<html>",
            "nul",
            r#"{"message": "?"}"#,
            "[",
            "[{}",
            "[{},",
            "[{},]",
            "[{} {}]",
            "[{}] x",
            "[{}]]",
            "[,{}]",
            "[{]",
            "[7]",
            "[null]",
            r#"[{"Spec": 7}]"#,
        ] {
            for piece in [1, 3, 99] {
                assert!(read(body, piece).is_err(), "{body} by {piece}");
            }
        }
    }

    #[test]
    fn only_what_is_not_whole_is_held() {
        let mut reader = ListReader::default();
        let mut count = 0;
        reader.read::<wire::Named>(b"[", |_| {}).expect("begun");
        for _ in 0..1_000 {
            reader.read::<wire::Named>(br#"{"ID": "a"}, {"ID"#, |_| count += 1).expect("read");
            reader.read::<wire::Named>(br#"": "b"},"#, |_| count += 1).expect("read");
            assert!(reader.rest.len() < 20, "{}", reader.rest.len());
        }
        assert_eq!(count, 2_000);
    }

    #[test]
    fn an_object_without_end_is_refused_in_time() {
        let mut reader = ListReader::default();
        reader.read::<wire::Named>(br#"[{"ID": ""#, |_| {}).expect("begun");
        let piece = vec![b'x'; 1_024 * 1_024];
        let mut pieces = (0..20).map(|_| reader.read::<wire::Named>(&piece, |_| {}));
        let refused = pieces.position(|read| read.is_err());
        assert_eq!(refused, Some(OBJECT_BYTES_MAX / piece.len() - 1));
    }
}
