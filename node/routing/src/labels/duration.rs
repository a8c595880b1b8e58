//! Durations as labels give them.

use std::time::Duration;

const MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a duration of 1 ms to 1 day: `10s`, `500ms`, `1m30s`, or whole seconds.
pub(super) fn parse(given: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "must be a duration such as 10s, 500ms or 1m, or whole seconds";
    let mut sum = Duration::ZERO;
    let mut rest = given;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, next) = after.split_at(letters);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            // A bare number is seconds, as NGINX has it.
            "" if digits == given.len() => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(FORM),
        };
        if number.is_empty() {
            return Err(FORM);
        }
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
        sum = part
            .and_then(|part| sum.checked_add(Duration::from_millis(part)))
            .filter(|sum| *sum <= MOST)
            .ok_or("is longer than a day")?;
        if next.is_empty() {
            break;
        }
        rest = next;
    }
    if sum.is_zero() {
        return Err("is 0, but must be at least 1ms: com.docker.lb.max_fails=0 turns checks off");
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_or_are_seconds() {
        for (given, milliseconds) in [
            ("10", Some(10_000)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m", Some(60_000)),
            ("1m30s", Some(90_000)),
            ("24h", Some(86_400_000)),
            ("1d", Some(86_400_000)),
            ("1d1ms", None),
            ("0", None),
            ("0ms", None),
            ("", None),
            ("s", None),
            ("10x", None),
            ("-1s", None),
            ("1.5s", None),
            ("1m30", None),
            ("10 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            let parsed = parse(given).ok().map(|one| one.as_millis());
            assert_eq!(parsed, milliseconds, "{given:?}");
        }
    }
}
