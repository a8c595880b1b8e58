//! Values as Interlock's files write them: whole seconds, `75s`, `32m`.

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

pub(super) fn bool_of(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(given) => Ok(*given),
        other => Err(format!("{} must be true or false", shown(other))),
    }
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
        DeValue::String(text) => match text.parse::<u64>() {
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
    let unusable = || format!("{} must be a size such as 32m, or 0 for no limit", shown(value));
    match value {
        DeValue::Integer(number) => whole(number).ok_or_else(unusable),
        DeValue::String(text) => {
            let text = text.to_ascii_lowercase();
            let (digits, unit) = match text.as_bytes().last() {
                Some(b'k') => (&text[..text.len() - 1], 1_024),
                Some(b'm') => (&text[..text.len() - 1], 1_024 * 1_024),
                Some(b'g') => (&text[..text.len() - 1], 1_024 * 1_024 * 1_024),
                _ => (text.as_str(), 1),
            };
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(unusable());
            }
            digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(unusable)
        }
        _ => Err(unusable()),
    }
}

fn whole(number: &toml::de::DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value for a message, shortened; secrets never get here.
fn shown(value: &DeValue<'_>) -> String {
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
