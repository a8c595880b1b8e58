//! YAML as a tree that knows where everything stands.
//!
//! Bounded: what aliases repeat counts as often as it is repeated, so that a small file
//! cannot become a large tree.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

/// Nodes of one file, with what its aliases repeat.
const NODES_MAX: usize = 200_000;
/// Lists and maps inside of each other.
const DEPTH_MAX: usize = 64;

/// Where something stands: line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Why a text is not YAML that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidYaml {
    pub(crate) place: Place,
    pub(crate) reason: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
    /// How many nodes it is, with those inside of it.
    size: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Map),
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, so that `true` or `80` are no texts.
    pub(crate) plain: bool,
}

/// Pairs in their order, each key once; merged ones (`<<`) come last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map(Vec<(Key, Rc<Node>)>);

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

impl Place {
    /// The beginning of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    fn of(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

impl Map {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(known, _)| known.text == key).map(|(_, node)| &**node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Node)> {
        self.0.iter().map(|(key, node)| (key, &**node))
    }
}

impl Node {
    /// Nothing: a key without a value, or `null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                scalar.plain && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::List(_) | Value::Map(_) => false,
        }
    }
}

/// Reads the one document of a text; `None` when it is empty.
pub(crate) fn read(text: &str) -> Result<Option<Rc<Node>>, InvalidYaml> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), size: 0 };
    let mut document = None;
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(document),
            (Event::DocumentStart(_), span) if document.is_some() => {
                return Err(wrong(&span, "a second document: only one is read"));
            }
            (Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd, _) => {}
            (event, span) => document = Some(reader.node(event, &span, 0)?),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: BTreeMap<usize, Rc<Node>>,
    /// Nodes so far.
    size: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), InvalidYaml> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Nothing, _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => {
                    let reason = error.info().replace('\n', ", ");
                    return Err(InvalidYaml { place: Place::of(error.marker()), reason });
                }
                None => return Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
            }
        }
    }

    fn node(
        &mut self,
        event: Event<'t>,
        span: &Span,
        depth: usize,
    ) -> Result<Rc<Node>, InvalidYaml> {
        if depth > DEPTH_MAX {
            return Err(wrong(span, format!("more than {DEPTH_MAX} levels deep")));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).map(Rc::clone);
                let known =
                    known.ok_or_else(|| wrong(span, "an alias inside of its own anchor"))?;
                self.count(known.size, span)?;
                return Ok(known);
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                (anchor, Value::Scalar(Scalar { text: text.into_owned(), plain }))
            }
            Event::SequenceStart(anchor, _) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Value::Map(self.map(depth)?)),
            _ => return Err(wrong(span, "a value is missing")),
        };
        self.count(1, span)?;
        let size = 1 + match &value {
            Value::Scalar(_) => 0,
            Value::List(nodes) => nodes.iter().map(|node| node.size).sum(),
            Value::Map(map) => map.0.iter().map(|(_, node)| node.size).sum(),
        };
        let node = Rc::new(Node { place: Place::of(&span.start), value, size });
        // Plain nodes carry the number 0.
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Rc<Node>>, InvalidYaml> {
        let mut nodes = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(nodes);
            }
            nodes.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Map, InvalidYaml> {
        let mut pairs: Vec<(Key, Rc<Node>)> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, &span, depth + 1)?;
            let Value::Scalar(Scalar { text, plain }) = &key.value else {
                return Err(wrong(&span, "a key must be a text"));
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, &value_span, depth + 1)?;
            if *plain && text == "<<" {
                merged.push((value, value_span));
                continue;
            }
            if !seen.insert(text.clone()) {
                return Err(wrong(&span, format!("key {text:?} is given twice")));
            }
            pairs.push((Key { text: text.clone(), place: Place::of(&span.start) }, value));
        }
        for (value, span) in merged {
            self.merge(&value, &span, &mut pairs, &mut seen)?;
        }
        Ok(Map(pairs))
    }

    /// Takes the pairs of `<<` whose keys are not there.
    fn merge(
        &mut self,
        value: &Node,
        span: &Span,
        pairs: &mut Vec<(Key, Rc<Node>)>,
        seen: &mut std::collections::BTreeSet<String>,
    ) -> Result<(), InvalidYaml> {
        match &value.value {
            Value::Map(map) => {
                for (key, node) in &map.0 {
                    if seen.insert(key.text.clone()) {
                        self.count(node.size, span)?;
                        pairs.push((key.clone(), Rc::clone(node)));
                    }
                }
                Ok(())
            }
            Value::List(nodes) => nodes.iter().try_for_each(|node| match &node.value {
                Value::Map(_) => self.merge(node, span, pairs, seen),
                _ => Err(wrong(span, "<< must name maps")),
            }),
            Value::Scalar(_) => Err(wrong(span, "<< must name a map")),
        }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), InvalidYaml> {
        self.size = self.size.saturating_add(nodes);
        if self.size > NODES_MAX {
            let reason = format!("more than {NODES_MAX} values, with those that aliases repeat");
            return Err(wrong(span, reason));
        }
        Ok(())
    }
}

fn wrong(span: &Span, reason: impl Into<String>) -> InvalidYaml {
    InvalidYaml { place: Place::of(&span.start), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> &Map {
        match &node.value {
            Value::Map(map) => map,
            other => panic!("no map: {other:?}"),
        }
    }

    fn text(node: &Node) -> &str {
        match &node.value {
            Value::Scalar(scalar) => &scalar.text,
            other => panic!("no scalar: {other:?}"),
        }
    }

    #[test]
    fn everything_knows_where_it_stands() {
        let node = read("# a file\na:\n  - b\n  - 'c'\nd: {e: ~}\n").expect("YAML").expect("one");
        let a = map(&node).get("a").expect("a");
        let Value::List(list) = &a.value else { panic!("no list: {a:?}") };
        assert_eq!(list[1].place, Place { line: 4, column: 5 });
        assert_eq!(text(&list[1]), "c");
        let d = map(map(&node).get("d").expect("d"));
        let (key, value) = d.iter().next().expect("e");
        assert_eq!((key.text.as_str(), key.place), ("e", Place { line: 5, column: 5 }));
        assert!(value.is_null());
        assert!(read("").expect("YAML").is_none() && read("# only\n").expect("YAML").is_none());
    }

    #[test]
    fn merged_maps_give_what_is_not_there() {
        let text_of = |all: &str, key: &str| {
            let node = read(all).expect("YAML").expect("one");
            text(map(map(&node).get("x").expect("x")).get(key).expect(key)).to_owned()
        };
        let all = "a: &a {p: 1, q: 1}\nb: &b {q: 2, r: 2}\nx:\n  <<: [*a, *b]\n  p: 0\n";
        assert_eq!(["p", "q", "r"].map(|key| text_of(all, key)), ["0", "1", "2"]);
        assert_eq!(text_of("a: &a {p: 1}\nx:\n  <<: *a\n", "p"), "1");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_place() {
        let nine = |of: &str| [of; 9].join(",");
        let mut laughs = format!("a: &a [{}]\n", nine("x"));
        for (last, name) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "g")]
        {
            laughs.push_str(&format!("{name}: &{name} [{}]\n", nine(&format!("*{last}"))));
        }
        for (text, line, said) in [
            ("a: 1\na: 2\n", 2, "key \"a\" is given twice"),
            ("a: 1\n---\nb: 2\n", 2, "a second document"),
            ("a: [1\n", 2, ""),
            ("a:\n  <<: 3\n", 2, "<< must name a map"),
            ("[a]: b\n", 1, "a key must be a text"),
            (&format!("{}{}", "[".repeat(80), "]".repeat(80)), 1, "more than 64 levels deep"),
            (&laughs, 6, "more than 200000 values"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.reason.contains(said), "{text}: {error:?}");
            assert_eq!(error.place.line, line, "{text}: {error:?}");
        }
    }
}
