//! Times as an operator writes and reads them: in the zone of this machine.

use std::str::FromStr;
use std::time::SystemTime;

use chrono::{DateTime, Local, NaiveDateTime, TimeZone as _, Utc};
use dovetail_proto::v1 as pb;

use crate::core::Core;
use crate::failure::Failure;
pub(crate) use crate::out::time as shown;

const ADVICE: &str = "write an index, a time such as 2026-11-23T18:00:00Z or '2026-11-23 18:00' \
                      in the zone of this machine, or 10m for ten minutes ago";

/// A place in the log: an index, or the last entry at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Index(u64),
    /// Milliseconds since 1970.
    Time(u64),
}

impl FromStr for When {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        if let Ok(index) = given.parse() {
            return Ok(Self::Index(index));
        }
        let moment = if let Ok(ago) = humantime::parse_duration(given) {
            SystemTime::now().checked_sub(ago).map(DateTime::<Utc>::from)
        } else {
            let zoned = DateTime::parse_from_rfc3339(given).ok();
            zoned.map(|time| time.to_utc()).or_else(|| local(given))
        };
        let ms = moment.ok_or(ADVICE)?.timestamp_millis();
        u64::try_from(ms).map(Self::Time).map_err(|_| format!("is before 1970: {ADVICE}"))
    }
}

/// A time without a zone is this machine's; of one that came twice, the earlier.
fn local(given: &str) -> Option<DateTime<Utc>> {
    let given = given.replacen('T', " ", 1);
    let read = NaiveDateTime::parse_from_str(&given, "%Y-%m-%d %H:%M:%S")
        .or_else(|_| NaiveDateTime::parse_from_str(&given, "%Y-%m-%d %H:%M"));
    let time = Local.from_local_datetime(&read.ok()?).earliest()?;
    Some(time.to_utc())
}

impl When {
    /// The index that is meant.
    pub(crate) async fn index(self, core: &Core) -> Result<u64, Failure> {
        let time_ms = match self {
            Self::Index(index) => return Ok(index),
            Self::Time(time_ms) => time_ms,
        };
        let request = pb::IndexAtRequest { time_ms };
        let answer = core.ask(|mut client| async move { client.index_at(request).await }).await?;
        if answer.index == 0 {
            return Err(Failure::Refused(format!(
                "the log begins after {}: dovetail log show tells from when on",
                shown(time_ms)
            )));
        }
        Ok(answer.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_log_is_an_index_or_a_time() {
        assert_eq!("57".parse(), Ok(When::Index(57)));
        assert_eq!("2023-11-14T22:13:20.123Z".parse(), Ok(When::Time(1_700_000_000_123)));
        assert_eq!("2023-11-14T23:13:20+01:00".parse(), Ok(When::Time(1_700_000_000_000)));
        let read = |text: &str| match text.parse() {
            Ok(When::Time(ms)) => ms,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(read("2023-11-14 22:13"), read("2023-11-14T22:13:00"));
        assert!(read("1h") < read("1m"));
        for bad in ["", "yesterday", "-1", "2023-11-14", "1969-01-01T00:00:00Z"] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_leaders_time_has_its_zone_beside_it() {
        let text = shown(1_700_000_000_123);
        assert!(text.contains(".123 ") && text.matches(':').count() == 3, "{text}");
        let rfc = text.replacen(' ', "T", 1).replacen(' ', "", 1);
        assert_eq!(rfc.parse(), Ok(When::Time(1_700_000_000_123)), "{rfc}");
    }
}
