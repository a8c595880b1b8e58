//! A key or a value that holds a secret must not reach the log.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::value::text_of;
use crate::{File, InvalidConfig, join};

impl File<'_> {
    /// Refuses literals of `AdminPass` and the like, and key material anywhere.
    pub(super) fn refuse_secrets(
        &self,
        path: &str,
        table: &DeTable<'_>,
    ) -> Result<(), InvalidConfig> {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            if is_secret(key.get_ref()) {
                let given = text_of(value.get_ref()).unwrap_or_default();
                let named = given.strip_prefix("secret:").is_some_and(|name| !name.is_empty());
                let empty = given.is_empty() && text_of(value.get_ref()).is_some();
                if !named && !empty {
                    return Err(self.invalid(
                        value.span().start,
                        &path,
                        "a secret must not stand in the file: name a Docker secret with secret:NAME",
                    ));
                }
            }
            self.refuse_pem(&path, value)?;
            if let DeValue::Table(below) = value.get_ref() {
                self.refuse_secrets(&path, below)?;
            }
        }
        Ok(())
    }

    fn refuse_pem(&self, path: &str, value: &Spanned<DeValue<'_>>) -> Result<(), InvalidConfig> {
        match value.get_ref() {
            DeValue::String(text) if text.contains("-----BEGIN ") => Err(self.invalid(
                value.span().start,
                path,
                "key material must not stand in the file: name a Docker secret with secret:NAME",
            )),
            DeValue::Array(values) => values.iter().try_for_each(|value| {
                if let DeValue::Table(below) = value.get_ref() {
                    self.refuse_secrets(path, below)?;
                }
                self.refuse_pem(path, value)
            }),
            _ => Ok(()),
        }
    }
}

/// Whether a key's value is a secret: `AdminPass` and the like.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "password", "passphrase", "passwd", "token"].iter().any(|end| key.ends_with(end))
}
