//! Values as Interlock's files write them: whole seconds, `75s`, `32m`, `"auto"`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

/// The text of a value that is one.
pub(super) fn text_of<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    match value {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

/// A text, or a number as it is written.
pub(super) fn plain_text_of(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.trim().to_owned()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        other => Err(format!("{} must be a text", shown(other))),
    }
}

/// Whether a value asks for nothing: an empty text, list or table.
pub(super) fn is_empty(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => text.is_empty(),
        DeValue::Array(values) => values.is_empty(),
        DeValue::Table(table) => table.is_empty(),
        _ => false,
    }
}

pub(super) fn bool_of(value: &DeValue<'_>) -> Result<bool, String> {
    let text = text_of(value).unwrap_or_default();
    match value {
        DeValue::Boolean(given) => Ok(*given),
        _ if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("on") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("off") => Ok(false),
        other => Err(format!("{} must be true or false", shown(other))),
    }
}

/// A whole number, which may be given as text.
pub(super) fn whole_of(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = match value {
        DeValue::Integer(number) => whole(number),
        DeValue::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{} must be a number from {} to {}", shown(value), range.start(), range.end())
    })
}

/// A duration: a whole number of seconds, or a text such as `75s` or `1m30s`.
pub(super) fn duration_of(
    value: &DeValue<'_>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let unusable =
        || format!("{} must be a number of seconds or a duration such as 75s", shown(value));
    let duration = match value {
        DeValue::Integer(number) => Duration::from_secs(whole(number).ok_or_else(unusable)?),
        DeValue::String(text) => match text.trim().parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => humantime::parse_duration(text).map_err(|_| unusable())?,
        },
        _ => return Err(unusable()),
    };
    if !range.contains(&duration) {
        return Err(format!(
            "{} must be from {} to {}",
            shown(value),
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end()),
        ));
    }
    Ok(duration)
}

/// A size in bytes: a whole number, or a text with `k`, `m` or `g` as NGINX takes it.
pub(super) fn size_of(value: &DeValue<'_>) -> Result<u64, String> {
    let size = match value {
        DeValue::Integer(number) => whole(number),
        DeValue::String(text) => size(text.trim()),
        _ => None,
    };
    size.ok_or_else(|| format!("{} must be a size such as 32m", shown(value)))
}

/// A number of buffers and the size of each, as in `4 8k`: the bytes in all.
pub(super) fn buffers_of(value: &DeValue<'_>) -> Result<u64, String> {
    let unusable = || format!("{} must be a number and a size, such as 4 8k", shown(value));
    let mut words = text_of(value).ok_or_else(unusable)?.split_whitespace();
    let (number, each) = (words.next(), words.next());
    let bytes = number
        .and_then(|number| number.parse::<u64>().ok())
        .zip(each.and_then(size))
        .and_then(|(number, each)| number.checked_mul(each));
    bytes.filter(|_| words.next().is_none()).ok_or_else(unusable)
}

/// Words of a text, parted by spaces or commas, or the texts of a list.
pub(super) fn words_of(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let parts = |text: &str| {
        let words = text.split([' ', ',', '\t', '\n', '\r']).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    match value {
        DeValue::String(text) => Ok(parts(text)),
        DeValue::Array(values) => {
            let each = |value: &toml::Spanned<DeValue<'_>>| match text_of(value.get_ref()) {
                Some(text) => Ok(parts(text)),
                None => Err(format!("{} must be a text", shown(value.get_ref()))),
            };
            Ok(values.iter().map(each).collect::<Result<Vec<_>, _>>()?.concat())
        }
        other => Err(format!("{} must be a text or a list of texts", shown(other))),
    }
}

fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1_024),
        b'm' => (&text[..text.len() - 1], 1_024 * 1_024),
        b'g' => (&text[..text.len() - 1], 1_024 * 1_024 * 1_024),
        _ => (text.as_str(), 1),
    };
    let whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if whole { digits.parse::<u64>().ok()?.checked_mul(unit) } else { None }
}

fn whole(number: &toml::de::DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value for a message, shortened; secrets never get here.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(given) => given.to_string(),
        DeValue::Datetime(at) => at.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
