//! `Extensions.NAME`: the service cluster, the published ports, and the options below `Config`.

use dovetail_routing::entry::ProxyOptions;
use dovetail_routing::names::{InvalidName, ServiceCluster};
use toml::Spanned;
use toml::de::DeValue;

use crate::options::Draft;
use crate::value::{is_empty, text_of, whole_of};
use crate::{File, InvalidConfig, join, keys};

impl File<'_> {
    pub(super) fn extension(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(ServiceCluster, ProxyOptions), InvalidConfig> {
        let mut cluster = ServiceCluster::default();
        let mut draft = Draft::default();
        let (mut published, mut published_ssl) = (None, None);
        let table = self.table(path, value)?;
        for (key, value) in self.unique(path, table)? {
            let path = join(path, key.get_ref());
            let given = value.get_ref();
            let known = match key.get_ref().to_ascii_lowercase().as_str() {
                "servicecluster" => service_cluster(given).map(|name| cluster = name),
                "config" => {
                    draft = self.options(&path, value)?;
                    Ok(())
                }
                "publishedport" => port_of(given).map(|port| published = Some(port)),
                "publishedsslport" => port_of(given).map(|port| published_ssl = Some(port)),
                "targetport" | "targetsslport" => {
                    self.remark(key.span().start, &path, keys::without_effect(keys::PORTS));
                    port_of(given).map(drop)
                }
                "publishmode" => {
                    self.remark(key.span().start, &path, keys::without_effect(keys::PORTS));
                    match text_of(given) {
                        Some("ingress" | "host") => Ok(()),
                        _ => Err("must be ingress or host".to_owned()),
                    }
                }
                other => {
                    match keys::hint(keys::EXTENSION_WITHOUT_EFFECT, other) {
                        // An empty value asks for nothing.
                        Some(_) if is_empty(given) => {}
                        Some(hint) => {
                            self.remark(key.span().start, &path, keys::without_effect(hint));
                        }
                        None => {
                            let reason = keys::unknown(key.get_ref(), keys::Level::Extension);
                            self.remark(key.span().start, &path, reason);
                        }
                    }
                    Ok(())
                }
            };
            known.map_err(|reason| self.invalid(value.span().start, &path, reason))?;
        }
        let mut options = self.finish(draft)?;
        options.published_port = published;
        options.published_ssl_port = published_ssl;
        Ok((cluster, options))
    }
}

fn service_cluster(given: &DeValue<'_>) -> Result<ServiceCluster, String> {
    let name = text_of(given).ok_or("must be a text")?;
    name.parse().map_err(|error: InvalidName| error.to_string())
}

fn port_of(given: &DeValue<'_>) -> Result<u16, String> {
    let port = whole_of(given, 1..=u64::from(u16::MAX))?;
    u16::try_from(port).map_err(|error| error.to_string())
}
