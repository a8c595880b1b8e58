//! Reads a list object by object, as its bytes come.
//!
//! A large swarm's list of tasks has hundreds of megabytes: no more of it is held than
//! the object that is not whole yet, and nobody waits until all of it was read.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Deserializer, Error, Value};

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
                (Place::Start, _) => break Ok(()),
                (Place::First | Place::Behind, b']') => Place::End,
                (Place::Behind, b',') => Place::Next,
                (Place::First | Place::Next, _) => match element(&self.rest[at..]) {
                    Ok(Some((element, length))) => {
                        take(element);
                        at += length;
                        self.place = Place::Behind;
                        continue;
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                },
                (Place::Behind | Place::End, byte) => {
                    let found = char::from(*byte).escape_default();
                    break Err(Error::custom(format!("'{found}' in a list behind an object")));
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

/// The object at the front, and its length; `None` while it is not whole.
fn element<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<(Element<T>, usize)>, Error> {
    let mut objects = Deserializer::from_slice(bytes).into_iter::<T>();
    match objects.next() {
        None => return Ok(None),
        Some(Ok(object)) => return Ok(Some((Ok(object), objects.byte_offset()))),
        Some(Err(error)) if error.is_eof() => return Ok(None),
        Some(Err(error)) if !error.is_data() => return Err(error),
        Some(Err(_)) => {}
    }
    let mut values = Deserializer::from_slice(bytes).into_iter::<Value>();
    let value = match values.next() {
        None => return Ok(None),
        Some(Ok(value)) => value,
        Some(Err(error)) if error.is_eof() => return Ok(None),
        Some(Err(error)) => return Err(error),
    };
    let id = value.get("ID").or_else(|| value.get("Id")).and_then(Value::as_str);
    let id = id.map(str::to_owned);
    let element = match (T::deserialize(value), id) {
        (Ok(object), _) => Ok(object),
        (Err(error), Some(id)) => Err((id, error.to_string())),
        (Err(error), None) => return Err(error),
    };
    Ok(Some((element, values.byte_offset())))
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
            {"ID": "c", "Spec": 7}, {"ID": "d", "Spec": {"Name": "\"é"}}] "#;
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
}
