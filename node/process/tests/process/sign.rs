//! Signatures of files: made with a member's key, checked with the authority alone.

use std::time::{Duration, SystemTime};

use dovetail_process::tls::verify_signed;

use crate::support::{authority, tls};

const YEARS: Duration = Duration::from_secs(5 * 365 * 24 * 3_600);

#[test]
fn a_signature_names_its_signer_also_long_after_the_certificate_expired() {
    let dir = authority();
    let ca = dir.path().join("member-1/ca.pem");
    let now = SystemTime::now();
    let signed = tls(&dir, "member-2").sign(b"what happened").expect("signed");
    let signer = verify_signed(&ca, b"what happened", &signed, now).expect("checked");
    assert_eq!(signer.to_string(), "dovetail://member/2");

    // The certificate counts as of the time that was signed, which the caller knows.
    let later = verify_signed(&ca, b"what happened", &signed, now + YEARS).expect_err("expired");
    assert!(later.contains("expired"), "{later}");
}

#[test]
fn a_changed_message_signature_or_authority_is_refused() {
    let dir = authority();
    let (ca, now) = (dir.path().join("member-1/ca.pem"), SystemTime::now());
    let signed = tls(&dir, "member-2").sign(b"what happened").expect("signed");
    let refused = |ca: &std::path::Path, message: &[u8], signed| {
        verify_signed(ca, message, signed, now).expect_err("refused")
    };
    let other_message = refused(&ca, b"what did not", &signed);
    assert_eq!(other_message, "the signature is not that of dovetail://member/2");

    let mut other = signed.clone();
    other.signature[10] ^= 1;
    assert_eq!(refused(&ca, b"what happened", &other), other_message);
    let mut other = signed.clone();
    other.scheme = 0x0401;
    assert_eq!(refused(&ca, b"what happened", &other), other_message);
    let mut other = signed.clone();
    other.chain.clear();
    assert!(refused(&ca, b"what happened", &other).contains("no certificate"));
    let mut other = signed.clone();
    other.chain = tls(&dir, "member-3").sign(b"").expect("signed").chain;
    let reason = refused(&ca, b"what happened", &other);
    assert_eq!(reason, "the signature is not that of dovetail://member/3");

    let strangers = authority();
    let foreign = strangers.path().join("member-1/ca.pem");
    let reason = refused(&foreign, b"what happened", &signed);
    assert!(reason.contains("not signed by"), "{reason}");
}
