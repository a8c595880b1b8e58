//! Queries: the engine's `filters` parameter and the few others that count.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The parameters of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "True"))
    }

    /// The filters, in either of the forms that clients send.
    pub(crate) fn filters(&self) -> Result<Filters, String> {
        let Some(text) = self.get("filters").filter(|text| !text.is_empty()) else {
            return Ok(Filters::default());
        };
        let invalid = || format!("invalid filters {text:?}");
        let json: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut filters = BTreeMap::new();
        for (name, values) in json {
            let values: BTreeSet<String> = match values {
                Value::Array(values) => {
                    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                }
                Value::Object(values) => values.into_iter().map(|(value, _)| value).collect(),
                _ => return Err(invalid()),
            };
            filters.insert(name, values);
        }
        Ok(Filters(filters))
    }
}

/// Filter name to accepted values; no filter of a name accepts everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Whether one of `values` is asked for by `name`, or nothing is.
    pub(crate) fn allow(&self, name: &str, values: &[&str]) -> bool {
        let Some(accepted) = self.0.get(name).filter(|accepted| !accepted.is_empty()) else {
            return true;
        };
        values.iter().any(|value| accepted.contains(*value))
    }

    /// The same, where the beginning of an id or name will do.
    pub(crate) fn allow_prefix(&self, name: &str, value: &str) -> bool {
        let Some(accepted) = self.0.get(name).filter(|accepted| !accepted.is_empty()) else {
            return true;
        };
        accepted.iter().any(|prefix| value.starts_with(prefix.as_str()))
    }

    /// `label=NAME` or `label=NAME=VALUE`, each of which must hold.
    pub(crate) fn allow_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let Some(wanted) = self.0.get("label") else { return true };
        wanted.iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_in_two_forms() {
        for text in [r#"{"service":["web"]}"#, r#"{"service":{"web":true}}"#] {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("filters", text)
                .finish();
            let filters = Query::parse(Some(&query)).filters().expect("filters");
            assert!(filters.allow("service", &["web"]) && !filters.allow("service", &["api"]));
            assert!(filters.allow("node", &["any"]));
        }
        assert!(Query::parse(Some("filters=%5B%5D")).filters().is_err());
    }
}
