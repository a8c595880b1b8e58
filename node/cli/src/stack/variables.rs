//! `${NAME}` in a stack file, from the environment, as `docker stack deploy` does it.

use std::borrow::Cow;

/// A text after its variables were replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replaced<'t> {
    pub(crate) text: Cow<'t, str>,
    /// Names that are not set, and so became nothing.
    pub(crate) unset: Vec<String>,
}

/// Replaces `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}`
/// and `${NAME?error}`; `$$` is a dollar.
pub(crate) fn replace<'t>(
    text: &'t str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Replaced<'t>, String> {
    if !text.contains('$') {
        return Ok(Replaced { text: Cow::Borrowed(text), unset: Vec::new() });
    }
    let (mut out, mut unset, mut rest) = (String::new(), Vec::new(), text);
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (inside, after) = match rest.strip_prefix('{') {
            Some(braced) => {
                braced.split_once('}').ok_or_else(|| format!("{}: ${{ has no }}", shown(text)))?
            }
            None => {
                let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        rest = after;
        let end = inside.find(|c: char| !is_name(c)).unwrap_or(inside.len());
        let (name, operator) = inside.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("{}: $ must be followed by a name; $$ is a dollar", shown(text)));
        }
        let value = environment(name);
        let full = value.clone().filter(|value| !value.is_empty());
        let operator = [":-", "-", ":?", "?"]
            .into_iter()
            .find_map(|operator_known| {
                operator.strip_prefix(operator_known).map(|word| (operator_known, word))
            })
            .or_else(|| operator.is_empty().then_some(("", "")));
        match operator {
            Some(("", _)) => match value {
                Some(value) => out.push_str(&value),
                None => unset.push(name.to_owned()),
            },
            Some((":-", default)) => out.push_str(full.as_deref().unwrap_or(default)),
            Some(("-", default)) => out.push_str(value.as_deref().unwrap_or(default)),
            Some((needed, reason)) => {
                let value = if needed == ":?" { full } else { value };
                match value {
                    Some(value) => out.push_str(&value),
                    None => return Err(format!("variable {name} must be set: {reason}")),
                }
            }
            None => return Err(format!("{}: ${{{inside:.64}}} is no variable", shown(text))),
        }
    }
    out.push_str(rest);
    Ok(Replaced { text: Cow::Owned(out), unset })
}

/// A text for a message, shortened.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("shop.example".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_as_docker_does() {
        for (text, replaced, unset) in [
            ("plain", "plain", &[][..]),
            ("www.$HOST", "www.shop.example", &[]),
            ("${HOST}:80", "shop.example:80", &[]),
            ("${NONE:-a}${EMPTY:-b}${EMPTY-c}${NONE-d}", "abd", &[]),
            ("${HOST:-a}${HOST?no}${HOST:?no}", "shop.exampleshop.exampleshop.example", &[]),
            ("$$HOST $${HOST}", "$HOST ${HOST}", &[]),
            ("a${NONE}b$NONE2", "ab", &["NONE", "NONE2"]),
            ("${EMPTY}", "", &[]),
        ] {
            let got = replace(text, &environment).expect(text);
            let got_unset: Vec<_> = got.unset.iter().map(String::as_str).collect();
            assert_eq!((&*got.text, &got_unset[..]), (replaced, unset), "{text}");
        }
    }

    #[test]
    fn what_docker_would_refuse_is_refused() {
        for (text, said) in [
            ("${HOST", "has no }"),
            ("5 $", "$$ is a dollar"),
            ("${}", "followed by a name"),
            ("$1", "followed by a name"),
            ("${HOST!x}", "is no variable"),
            ("${NONE:?a host is needed}", "variable NONE must be set: a host is needed"),
            ("${EMPTY:?}", "variable EMPTY must be set"),
        ] {
            let error = replace(text, &environment).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
