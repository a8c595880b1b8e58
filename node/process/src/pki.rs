//! Our own certificate authority: what `dovetail pki` writes.
//!
//! ```text
//! DIR/ca/{ca,key}.pem                     the authority; its key is needed to issue only
//! DIR/member-1/{ca,cert,key}.pem …        what --tls-dir takes
//! DIR/{proxy,extension,operator}/{ca,cert,key}.pem
//! ```
//!
//! Keys are ECDSA P-256, key files 0600. Nothing that exists is ever overwritten.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::DnsName;
use time::{Duration, OffsetDateTime};

use crate::identity::{Identity, Role};

/// How long a member's, a subscriber's or an operator's certificate is valid.
pub const LEAF_VALIDITY: Duration = Duration::days(365);
/// How long the authority is valid.
pub const CA_VALIDITY: Duration = Duration::days(3_650);
/// Members that one `init` makes at most.
pub const MEMBERS_MAX: u64 = 99;
/// Names that one certificate carries at most besides the standing ones.
const SANS_MAX: usize = 100;
/// How far a certificate's begin lies back, for clocks that differ.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// Certificates that were not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Something is there already.
    #[error("{} already exists, and is never overwritten: nothing was written", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// A number of members that makes no quorum.
    #[error("{given} members: from 1 to {MEMBERS_MAX}")]
    Members {
        /// The number.
        given: u64,
    },
    /// A name that no certificate can carry.
    #[error("name {given:?}: {reason}")]
    San {
        /// The name.
        given: String,
        /// Why not.
        reason: String,
    },
    /// `ROLE/NAME` that says nobody.
    #[error(
        "{given:?} is not ROLE/NAME, such as operator/anna, proxy/edge-1 or member/4: {reason}"
    )]
    Identity {
        /// The text.
        given: String,
        /// Why not.
        reason: String,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The authority in the folder is of no use.
    #[error("{}: {reason}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The library refused.
    #[error("make the certificate of {whose}")]
    Make {
        /// Whose.
        whose: String,
        /// Why not.
        #[source]
        error: rcgen::Error,
    },
}

/// Makes an authority, and folders for members 1 to `members`, a proxy, an extension and
/// an operator of role admin. Returns the folders.
pub fn init(dir: &Path, members: u64, sans: &[String]) -> Result<Vec<PathBuf>, PkiError> {
    if !(1..=MEMBERS_MAX).contains(&members) {
        return Err(PkiError::Members { given: members });
    }
    let sans = parse_sans(sans)?;
    let authority = Authority::new()?;
    let mut identities: Vec<_> = (1..=members).map(|slot| Identity::Member { slot }).collect();
    identities.push(Identity::Proxy { name: None, service_clusters: Vec::new() });
    identities.push(Identity::Extension { name: None, service_clusters: Vec::new() });
    identities.push(Identity::Operator { name: "operator".to_owned(), role: Role::Admin });

    // All is made before any of it is written.
    let ca = dir.join("ca");
    let mut folders = vec![Folder {
        path: ca,
        files: vec![
            File::public("ca.pem", authority.pem.clone()),
            File::secret("key.pem", authority.issuer.key().serialize_pem()),
        ],
    }];
    for identity in identities {
        let path = match &identity {
            Identity::Operator { .. } => dir.join("operator"),
            identity => dir.join(folder_name(identity)),
        };
        folders.push(authority.leaf(path, &identity, &sans)?);
    }
    write_all(&folders)?;
    Ok(folders.into_iter().map(|folder| folder.path).collect())
}

/// Issues one more certificate from the authority in `dir`, for `ROLE/NAME`, such as
/// `operator/anna`, `member/4` or `proxy/edge?service_cluster=blue`. `role` is an
/// operator's. Returns the folder, such as `DIR/operator-anna`.
pub fn issue(
    dir: &Path,
    role_and_name: &str,
    role: Role,
    sans: &[String],
) -> Result<PathBuf, PkiError> {
    let query = if role_and_name.starts_with("operator/") && !role_and_name.contains('?') {
        format!("?role={role}")
    } else {
        String::new()
    };
    let identity: Identity = format!("{}{role_and_name}{query}", crate::identity::SCHEME)
        .parse()
        .map_err(|error: crate::identity::InvalidIdentity| {
        PkiError::Identity { given: role_and_name.to_owned(), reason: error.to_string() }
    })?;
    let sans = parse_sans(sans)?;
    let authority = Authority::load(dir)?;
    let folder = authority.leaf(dir.join(folder_name(&identity)), &identity, &sans)?;
    write_all(std::slice::from_ref(&folder))?;
    Ok(folder.path)
}

fn folder_name(identity: &Identity) -> String {
    match (identity.slot(), identity.name()) {
        (Some(slot), _) => format!("member-{slot}"),
        (None, Some(name)) => format!("{}-{name}", identity.kind()),
        (None, None) => identity.kind().to_owned(),
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self, PkiError> {
        let failed = |error| PkiError::Make { whose: "the authority".to_owned(), error };
        let key = key_pair().map_err(failed)?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        // A name of its own, or a certificate of another authority would look forged
        // rather than foreign.
        let point = rcgen::PublicKeyData::der_bytes(&key);
        let suffix: String = point.iter().rev().take(6).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = common_name(&format!("dovetail authority {suffix}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + CA_VALIDITY;
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    fn load(dir: &Path) -> Result<Self, PkiError> {
        let read = |name: &str| {
            let path = dir.join("ca").join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok((path, text)),
                Err(error) => Err(PkiError::Read { path, error }),
            }
        };
        let (pem_path, pem) = read("ca.pem")?;
        let (key_path, key) = read("key.pem")?;
        let key = KeyPair::from_pem(&key).map_err(|error| PkiError::Authority {
            path: key_path.clone(),
            reason: format!("holds no PEM private key: {error}"),
        })?;
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| {
            PkiError::Authority { path: pem_path.clone(), reason: format!("no PEM: {error}") }
        })?;
        let certificate = parsed.parse_x509().map_err(|error| PkiError::Authority {
            path: pem_path.clone(),
            reason: format!("no certificate: {error}"),
        })?;
        if certificate.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(PkiError::Authority {
                path: key_path,
                reason: format!("does not match the certificate in {}", pem_path.display()),
            });
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| PkiError::Authority {
            path: pem_path,
            reason: format!("not the certificate of an authority: {error}"),
        })?;
        Ok(Self { pem, issuer })
    }

    fn leaf(
        &self,
        path: PathBuf,
        identity: &Identity,
        sans: &[SanType],
    ) -> Result<Folder, PkiError> {
        let failed = |error| PkiError::Make { whose: identity.to_string(), error };
        let key = key_pair().map_err(failed)?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&identity.actor());
        params.subject_alt_names = standing_sans(identity).map_err(failed)?;
        for san in sans {
            if !params.subject_alt_names.contains(san) {
                params.subject_alt_names.push(san.clone());
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.slot().is_some() {
            // Only a member is ever a server.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + LEAF_VALIDITY;
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Folder {
            path,
            files: vec![
                File::public("ca.pem", self.pem.clone()),
                File::public("cert.pem", cert.pem()),
                File::secret("key.pem", key.serialize_pem()),
            ],
        })
    }
}

fn key_pair() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// What every certificate is good for: this machine, and a member's name on a Swarm.
fn standing_sans(identity: &Identity) -> Result<Vec<SanType>, rcgen::Error> {
    let mut sans = vec![
        SanType::URI(Ia5String::try_from(identity.to_string())?),
        SanType::DnsName(Ia5String::try_from("localhost")?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    if let Some(slot) = identity.slot() {
        sans.push(SanType::DnsName(Ia5String::try_from(format!("core-{slot}"))?));
    }
    Ok(sans)
}

fn parse_sans(given: &[String]) -> Result<Vec<SanType>, PkiError> {
    if given.len() > SANS_MAX {
        return Err(PkiError::San {
            given: given[SANS_MAX].clone(),
            reason: format!("more than {SANS_MAX} names"),
        });
    }
    given.iter().map(|name| parse_san(name)).collect()
}

fn parse_san(given: &str) -> Result<SanType, PkiError> {
    if let Ok(ip) = given.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let invalid =
        |reason: &str| PkiError::San { given: given.to_owned(), reason: reason.to_owned() };
    // One leading star is a wildcard; the rest has to be a name.
    let checked = given.strip_prefix("*.").unwrap_or(given);
    DnsName::try_from(checked).map_err(|_| invalid("neither a DNS name nor an IP address"))?;
    let name = Ia5String::try_from(given).map_err(|_| invalid("not ASCII"))?;
    Ok(SanType::DnsName(name))
}

struct Folder {
    path: PathBuf,
    files: Vec<File>,
}

struct File {
    name: &'static str,
    mode: u32,
    text: String,
}

impl File {
    fn public(name: &'static str, text: String) -> Self {
        Self { name, mode: 0o644, text }
    }

    fn secret(name: &'static str, text: String) -> Self {
        Self { name, mode: 0o600, text }
    }
}

fn write_all(folders: &[Folder]) -> Result<(), PkiError> {
    for folder in folders {
        if folder.path.symlink_metadata().is_ok() {
            return Err(PkiError::Exists { path: folder.path.clone() });
        }
    }
    for folder in folders {
        let failed = |path: &Path, error| PkiError::Write { path: path.to_owned(), error };
        if let Some(parent) = folder.path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        fs::create_dir(&folder.path).map_err(|error| failed(&folder.path, error))?;
        for file in &folder.files {
            let path = folder.path.join(file.name);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(file.mode)
                .open(&path)
                .and_then(|mut open| {
                    open.write_all(file.text.as_bytes())?;
                    open.sync_all()
                })
                .map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}
