//! `Extensions.NAME.Config`: the options of NGINX's and HAProxy's extensions that the
//! built-in proxy honours, and ours.

use std::sync::Arc;
use std::time::Duration;

use dovetail_routing::entry::{MergeHosts, ProxyOptions, SslProtocols, SslVerify, Subnet};
use dovetail_routing::snapshot::UpstreamProtocol;
use toml::Spanned;
use toml::de::DeValue;

use crate::access_format::Format;
use crate::ciphers::{self, Version};
use crate::value::{
    bool_of, buffers_of, duration_of, is_empty, plain_text_of, shown, size_of, text_of, whole_of,
    words_of,
};
use crate::{File, InvalidConfig, join, keys};

/// NGINX's own `large_client_header_buffers`: what holds when only the small buffer is set.
const LARGE_BUFFERS: u64 = 4 * 8 * 1_024;

/// The options of one extension, before those are settled that depend on others.
#[derive(Debug, Default)]
pub(super) struct Draft {
    options: ProxyOptions,
    header_buffer: Option<u64>,
    large_buffers: Option<u64>,
    client_timeout: Option<Duration>,
    server_timeout: Option<Duration>,
    /// Where `SSLCiphers` stands.
    ciphers: Option<Place>,
    /// Where `ProxyProtocol` stands.
    proxy_protocol: Option<Place>,
}

#[derive(Debug)]
struct Place {
    at: usize,
    path: String,
}

impl File<'_> {
    pub(super) fn options(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Draft, InvalidConfig> {
        let mut draft = Draft::default();
        let table = self.table(path, value)?;
        for (key, value) in self.unique(path, table)? {
            let place = Place { at: key.span().start, path: join(path, key.get_ref()) };
            let at = value.span().start;
            self.option(&mut draft, key.get_ref(), &place, value.get_ref())
                .map_err(|reason| self.invalid(at, &place.path, reason))?;
        }
        Ok(draft)
    }

    fn option(
        &mut self,
        draft: &mut Draft,
        key: &str,
        place: &Place,
        given: &DeValue<'_>,
    ) -> Result<(), String> {
        let timeout = |given| duration_of(given, keys::TIMEOUT).map(Some);
        let options = &mut draft.options;
        match key.to_ascii_lowercase().as_str() {
            "hideinfoheaders" => options.hide_info_headers = bool_of(given)?,
            "connecttimeout" => options.connect_timeout = timeout(given)?,
            "readtimeout" => options.read_timeout = timeout(given)?,
            "sendtimeout" => options.send_timeout = timeout(given)?,
            "keepalivetimeout" => options.keepalive_timeout = timeout(given)?,
            "clientbodytimeout" => options.client_body_timeout = timeout(given)?,
            "clienttimeout" => draft.client_timeout = timeout(given)?,
            "servertimeout" => draft.server_timeout = timeout(given)?,
            "clientmaxbodysize" => options.client_max_body_size = Some(body_size_of(given)?),
            "clientheaderbuffersize" => {
                draft.header_buffer = Some(self.header_bytes(place, size_of(given)?)?);
            }
            "largeclientheaderbuffers" => {
                draft.large_buffers = Some(self.header_bytes(place, buffers_of(given)?)?);
            }
            "underscoresinheaders" => options.drop_underscored_headers = !bool_of(given)?,
            "maxconnections" => {
                options.max_connections = Some(whole_of(given, keys::CONNECTIONS)?);
            }
            "httpversion" => options.http_version = self.http_version(place, given)?,
            "iphash" => options.ip_hash = bool_of(given)?,
            "sslverify" => options.ssl_verify = ssl_verify_of(given)?,
            "sslprotocols" => options.ssl_protocols = self.ssl_protocols(place, given)?,
            "sslciphers" => {
                options.ssl_ciphers = self.ssl_ciphers(place, given)?;
                draft.ciphers = Some(Place { at: place.at, path: place.path.clone() });
            }
            "accesslogpath" => options.access_log_path = access_log_path_of(given)?,
            "mainlogformat" => options.access_log_format = self.log_format(place, given)?,
            "trustedproxies" => options.trusted_proxies = subnets_of(given)?,
            "proxyprotocol" => {
                options.proxy_protocol = bool_of(given)?;
                draft.proxy_protocol = Some(Place { at: place.at, path: place.path.clone() });
            }
            "mergehosts" => options.merge_hosts = merge_hosts_of(given)?,
            other => match keys::hint(keys::OPTIONS_WITHOUT_EFFECT, other) {
                // An empty value asks for nothing.
                Some(_) if is_empty(given) => {}
                Some(hint) => self.remark(place.at, &place.path, keys::without_effect(hint)),
                None => {
                    self.remark(place.at, &place.path, keys::unknown(key, keys::Level::Options));
                }
            },
        }
        Ok(())
    }

    /// Settles what depends on several keys.
    pub(super) fn finish(&mut self, draft: Draft) -> Result<ProxyOptions, InvalidConfig> {
        let mut options = draft.options;
        if draft.header_buffer.is_some() || draft.large_buffers.is_some() {
            let large = draft.large_buffers.unwrap_or(LARGE_BUFFERS);
            let most = large.max(draft.header_buffer.unwrap_or_default());
            options.client_header_bytes_max = Some(most);
        }
        options.client_body_timeout = options.client_body_timeout.or(draft.client_timeout);
        options.read_timeout = options.read_timeout.or(draft.server_timeout);
        if let Some(place) = draft.ciphers {
            let suites = &options.ssl_ciphers;
            let has = |version| suites.is_empty() || ciphers::has(suites, version);
            let (tls12, tls13) = (has(Version::Tls12), has(Version::Tls13));
            let refused = match options.ssl_protocols {
                SslProtocols::Tls12 if !tls12 => Some("TLSv1.2"),
                SslProtocols::Tls13 if !tls13 => Some("TLSv1.3"),
                _ => None,
            };
            if let Some(version) = refused {
                let reason = format!("leaves no cipher suite of {version}, all that is spoken");
                return Err(self.invalid(place.at, &place.path, reason));
            }
            // A version without suites is not offered, rather than with all of them.
            let only = match options.ssl_protocols {
                SslProtocols::Both if !tls13 => Some((SslProtocols::Tls12, "TLSv1.2")),
                SslProtocols::Both if !tls12 => Some((SslProtocols::Tls13, "TLSv1.3")),
                _ => None,
            };
            if let Some((protocols, version)) = only {
                options.ssl_protocols = protocols;
                let reason = format!("leaves cipher suites of {version} alone: no other is spoken");
                self.remark(place.at, &place.path, reason);
            }
        }
        if let Some(place) = draft.proxy_protocol
            && options.proxy_protocol
            && options.trusted_proxies.is_empty()
        {
            let reason = "has no effect without TrustedProxies: nobody's header is taken";
            self.remark(place.at, &place.path, reason);
        }
        Ok(options)
    }

    fn header_bytes(&mut self, place: &Place, bytes: u64) -> Result<u64, String> {
        if !keys::HEADER_BYTES.contains(&bytes) {
            return Err(format!("{bytes} bytes: must be from 1k to 1m in all"));
        }
        if bytes > keys::HEADER_BYTES_TAKEN {
            self.remark(place.at, &place.path, "is above what a proxy takes: 64k in all");
        }
        Ok(bytes)
    }

    fn http_version(
        &mut self,
        place: &Place,
        given: &DeValue<'_>,
    ) -> Result<UpstreamProtocol, String> {
        match plain_text_of(given)?.as_str() {
            "" | "1.1" => Ok(UpstreamProtocol::Auto),
            "2" | "2.0" => Ok(UpstreamProtocol::Http2),
            "1.0" => {
                let reason = "1.0 is not spoken to upstreams: they get HTTP/1.1";
                self.remark(place.at, &place.path, reason);
                Ok(UpstreamProtocol::Auto)
            }
            _ => Err(format!("{} must be 1.1 or 2", shown(given))),
        }
    }

    fn ssl_protocols(
        &mut self,
        place: &Place,
        given: &DeValue<'_>,
    ) -> Result<SslProtocols, String> {
        let (mut tls12, mut tls13, mut old) = (false, false, Vec::new());
        for word in words_of(given)? {
            match word.to_ascii_lowercase().as_str() {
                "tlsv1.2" => tls12 = true,
                "tlsv1.3" => tls13 = true,
                "sslv2" | "sslv3" | "tlsv1" | "tlsv1.0" | "tlsv1.1" => old.push(word),
                _ => return Err(format!("{word:?} is no version of TLS: TLSv1.2, TLSv1.3")),
            }
        }
        if !old.is_empty() {
            let reason = format!("{} is not offered: TLSv1.2 and TLSv1.3 are", old.join(" "));
            self.remark(place.at, &place.path, reason);
        }
        match (tls12, tls13) {
            (true, true) => Ok(SslProtocols::Both),
            (true, false) => Ok(SslProtocols::Tls12),
            (false, true) => Ok(SslProtocols::Tls13),
            (false, false) => Err(format!("{} names neither TLSv1.2 nor TLSv1.3", shown(given))),
        }
    }

    fn ssl_ciphers(&mut self, place: &Place, given: &DeValue<'_>) -> Result<Vec<Arc<str>>, String> {
        let text = text_of(given).ok_or_else(|| format!("{} must be a text", shown(given)))?;
        let chosen = ciphers::choose(text);
        for name in chosen.unknown {
            let name: String = name.chars().take(64).collect();
            let reason = format!("{name:?} names no cipher suite that is offered here");
            self.remark(place.at, &place.path, reason);
        }
        let suites = chosen.suites.ok_or_else(|| {
            format!("{} leaves no cipher suite: HIGH leaves all that are offered", shown(given))
        })?;
        Ok(suites.into_iter().map(Into::into).collect())
    }

    fn log_format(
        &mut self,
        place: &Place,
        given: &DeValue<'_>,
    ) -> Result<Option<Arc<str>>, String> {
        let text = text_of(given).ok_or_else(|| format!("{} must be a text", shown(given)))?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let format = Format::parse(text).map_err(|error| {
            let character = text.get(..error.at).unwrap_or_default().chars().count() + 1;
            format!("character {character}: {error}")
        })?;
        for name in format.unknown() {
            let name: String = name.chars().take(64).collect();
            self.remark(place.at, &place.path, format!("${name} is always -: it is not known"));
        }
        Ok(Some(text.into()))
    }
}

fn body_size_of(given: &DeValue<'_>) -> Result<u64, String> {
    size_of(given).map_err(|reason| format!("{reason}, or 0 for no limit"))
}

/// NGINX's words and HAProxy's.
fn ssl_verify_of(given: &DeValue<'_>) -> Result<SslVerify, String> {
    let text = match given {
        DeValue::Boolean(true) => "on",
        DeValue::Boolean(false) => "off",
        other => text_of(other).unwrap_or("a value of another kind"),
    };
    match text.to_ascii_lowercase().as_str() {
        "required" | "on" | "" => Ok(SslVerify::Required),
        "optional" => Ok(SslVerify::Optional),
        "none" | "off" => Ok(SslVerify::None),
        "optional_no_ca" => {
            Err("\"optional_no_ca\": a certificate that is shown is always verified: must be \
                 required, optional or none"
                .to_owned())
        }
        _ => Err(format!("{} must be required, optional or none", shown(given))),
    }
}

fn access_log_path_of(given: &DeValue<'_>) -> Result<Option<Arc<str>>, String> {
    let text = text_of(given).ok_or_else(|| format!("{} must be a text", shown(given)))?.trim();
    if text.len() > keys::PATH_BYTES_MAX {
        return Err(format!("{} bytes: at most {} are taken", text.len(), keys::PATH_BYTES_MAX));
    }
    let usable = matches!(text, "off" | "none" | "stdout") || text.starts_with('/');
    if !text.is_empty() && (!usable || text.chars().any(char::is_control)) {
        return Err(format!("{} must be off or a file such as /dev/stdout", shown(given)));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

fn subnets_of(given: &DeValue<'_>) -> Result<Vec<Subnet>, String> {
    let words = words_of(given)?;
    if words.len() > keys::SUBNETS_MAX {
        return Err(format!("{} ranges, at most {} are taken", words.len(), keys::SUBNETS_MAX));
    }
    let subnet = |word: String| word.parse().map_err(|error| format!("{word:?} {error}"));
    words.into_iter().map(subnet).collect()
}

fn merge_hosts_of(given: &DeValue<'_>) -> Result<MergeHosts, String> {
    match text_of(given).unwrap_or_default().to_ascii_lowercase().as_str() {
        "all" => Ok(MergeHosts::All),
        "stack" => Ok(MergeHosts::Stack),
        "none" => Ok(MergeHosts::None),
        _ => Err(format!("{} must be all, stack or none", shown(given))),
    }
}
