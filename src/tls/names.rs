//! Which certificate is for which host: by the names in it, chosen by what the client names (RFC 6066
//! section 3).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::tls::automatic::Place;

/// The host names in a certificate, in lower case, as far as they are names of hosts.
pub fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let certificate = EndEntityCert::try_from(certificate)?;
    let mut names: Vec<String> = Vec::new();
    for name in certificate.valid_dns_names().map(str::to_ascii_lowercase) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Why a certificate is not good at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untimely {
    /// Its time has not begun.
    NotYet,
    /// Its time is over.
    Expired,
}

/// When `certificate` expires, in seconds since the Unix epoch.
pub fn not_after(certificate: &CertificateDer<'_>) -> u64 {
    // At the end of all time it has expired, and the error says when.
    match verdict(certificate, Duration::from_secs(u64::MAX)) {
        Some(webpki::Error::CertExpired { not_after, .. }) => not_after.as_secs(),
        Some(_) | None => 0,
    }
}

/// When `certificate` becomes good, in seconds since the Unix epoch.
pub fn not_before(certificate: &CertificateDer<'_>) -> u64 {
    match verdict(certificate, Duration::ZERO) {
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => not_before.as_secs(),
        Some(_) | None => 0,
    }
}

/// Whether `certificate` is good at `now`, since the Unix epoch.
pub fn timely(certificate: &CertificateDer<'_>, now: Duration) -> Result<(), Untimely> {
    match verdict(certificate, now) {
        Some(webpki::Error::CertExpired { .. }) => Err(Untimely::Expired),
        Some(webpki::Error::CertNotValidYet { .. }) => Err(Untimely::NotYet),
        Some(_) | None => Ok(()),
    }
}

/// What speaks against `certificate`: at least that nobody is trusted here. Its time is looked at
/// before that.
fn verdict(certificate: &CertificateDer<'_>, now: Duration) -> Option<webpki::Error> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let (time, usage) = (UnixTime::since_unix_epoch(now), KeyUsage::server_auth());
    certificate.verify_for_usage(&[], &[], &[], time, usage, None, None).err()
}

/// Certificates for the same hosts with keys of several kinds, the better ones first.
type Keys = Vec<Arc<CertifiedKey>>;

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Choice {
    defaults: Keys,
    /// Those that Burdock gets for itself; each has its whole name.
    automatic: HashMap<String, Arc<Place>>,
    /// The first of them, where there is no other default.
    first: Option<Arc<Place>>,
    exact: HashMap<String, Keys>,
    /// By what follows the `*.`.
    wildcards: HashMap<String, Keys>,
}

impl Choice {
    /// `defaults` for whoever names no host, or one that is not named by any.
    pub(super) fn new(defaults: Keys) -> Self {
        let (exact, wildcards) = Default::default();
        Self { defaults, automatic: HashMap::new(), first: None, exact, wildcards }
    }

    /// What will be in `place` for `name`; until then, whatever else there is.
    pub(super) fn expect(&mut self, name: &str, place: Arc<Place>) {
        self.first.get_or_insert_with(|| Arc::clone(&place));
        self.automatic.insert(name.to_owned(), place);
    }

    /// `key` for `name`; those that were there before go first.
    pub(super) fn add(&mut self, name: &str, key: &Arc<CertifiedKey>) {
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcards, parent),
            None => (&mut self.exact, name),
        };
        map.entry(name.to_owned()).or_default().push(Arc::clone(key));
    }

    /// The best one for `host` with a key whose signature the client can verify; the best one of all
    /// if it can verify none, which tells it so. RFC 9525 section 6.3: a wildcard stands for one
    /// label, the first.
    fn find(&self, host: &str, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let host = host.to_ascii_lowercase();
        let own = self.automatic.get(&host).and_then(|place| place.in_use());
        let own = own.as_ref().map(|in_use| &in_use.key);
        let whole = self.exact.get(&host).into_iter().flatten();
        let parent = host.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
        let named = own.into_iter().chain(whole).chain(parent.into_iter().flatten());
        best(named, schemes).or_else(|| self.default(schemes))
    }

    /// For whoever names no host, or one that is not named by any; `None` as long as the first one
    /// has not come.
    fn default(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let first = || Some(Arc::clone(&self.first.as_ref()?.in_use()?.key));
        best(self.defaults.iter(), schemes).or_else(first)
    }
}

fn best<'a>(
    mut keys: impl Iterator<Item = &'a Arc<CertifiedKey>>,
    schemes: &[SignatureScheme],
) -> Option<Arc<CertifiedKey>> {
    let can = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
    let first = keys.next()?;
    let found = if can(&first) { Some(first) } else { keys.find(can) };
    Some(Arc::clone(found.unwrap_or(first)))
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        match hello.server_name() {
            Some(host) => self.find(host, schemes),
            None => self.default(schemes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::automatic::InUse;

    const ECDSA: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

    fn made(names: &[&str]) -> rcgen::CertifiedKey<rcgen::KeyPair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names).unwrap()
    }

    fn key(of: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Arc<CertifiedKey> {
        let private = of.signing_key.serialize_der().try_into().unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&private).unwrap();
        Arc::new(CertifiedKey::new(vec![of.cert.der().clone()], key))
    }

    #[test]
    fn names_are_those_of_hosts_in_lower_case() {
        let certificate = made(&["A.test", "*.b.test", "127.0.0.1", "a.test"]);
        assert_eq!(names(certificate.cert.der()).unwrap(), ["a.test", "*.b.test"]);
        assert!(names(&CertificateDer::from(b"none".to_vec())).is_err());
    }

    #[test]
    fn a_wildcard_stands_for_one_label_and_a_whole_name_goes_first() {
        let keys: Vec<_> = (0..3).map(|_| key(&made(&["x"]))).collect();
        let mut choice = Choice::new(vec![Arc::clone(&keys[0])]);
        choice.add("*.test", &keys[1]);
        choice.add("a.test", &keys[2]);
        for (host, expected) in [
            ("a.test", 2),
            ("A.TEST", 2),
            ("b.test", 1),
            ("b.b.test", 0),
            ("test", 0),
            ("other", 0),
            ("", 0),
        ] {
            assert!(Arc::ptr_eq(&choice.find(host, &ECDSA).unwrap(), &keys[expected]), "{host}");
        }
    }

    #[test]
    fn of_several_kinds_a_client_gets_the_best_that_it_can_verify() {
        let of = |algorithm| {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
            let cert = params.self_signed(&pair).unwrap();
            key(&rcgen::CertifiedKey { cert, signing_key: pair })
        };
        let (one, two) = (of(&rcgen::PKCS_ECDSA_P256_SHA256), of(&rcgen::PKCS_ED25519));
        let is = |found: Option<Arc<CertifiedKey>>, key| Arc::ptr_eq(&found.unwrap(), key);
        let mut choice = Choice::new(vec![Arc::clone(&one), Arc::clone(&two)]);
        choice.add("*.test", &one);
        choice.add("*.test", &two);
        let (edwards, rsa) = ([SignatureScheme::ED25519], [SignatureScheme::RSA_PSS_SHA256]);
        for host in ["a.test", "other"] {
            assert!(is(choice.find(host, &ECDSA), &one), "{host}");
            assert!(is(choice.find(host, &[edwards[0], ECDSA[0]]), &one), "{host}");
            assert!(is(choice.find(host, &edwards), &two), "{host}");
            assert!(is(choice.find(host, &rsa), &one), "{host}");
        }
        // What comes by itself is of one kind; the others stay for who needs them.
        let (place, own): (Arc<Place>, _) = (Arc::default(), of(&rcgen::PKCS_ECDSA_P256_SHA256));
        place.put(InUse { key: Arc::clone(&own), not_before: 0, not_after: 1 });
        choice.expect("a.test", place);
        assert!(is(choice.find("a.test", &ECDSA), &own));
        assert!(is(choice.find("a.test", &edwards), &two));
    }

    #[test]
    fn one_that_is_expected_is_used_when_it_has_come() {
        let [file, wildcard, own, new] = std::array::from_fn(|_| key(&made(&["x"])));
        let put = |place: &Place, key: &Arc<CertifiedKey>| {
            place.put(InUse { key: Arc::clone(key), not_before: 0, not_after: 1 });
        };
        let is = |found: Option<Arc<CertifiedKey>>, key| Arc::ptr_eq(&found.unwrap(), key);
        let mut choice = Choice::new(vec![Arc::clone(&file)]);
        let place: Arc<Place> = Arc::default();
        choice.expect("a.test", Arc::clone(&place));
        assert!(is(choice.find("a.test", &ECDSA), &file));
        choice.add("*.test", &wildcard);
        assert!(is(choice.find("a.test", &ECDSA), &wildcard));
        put(&place, &own);
        assert!(
            is(choice.find("A.test", &ECDSA), &own) && is(choice.find("b.test", &ECDSA), &wildcard)
        );
        put(&place, &new);
        assert!(is(choice.find("a.test", &ECDSA), &new) && is(choice.default(&ECDSA), &file));

        let mut alone = Choice::new(Vec::new());
        let place: Arc<Place> = Arc::default();
        alone.expect("a.test", Arc::clone(&place));
        assert!(alone.find("a.test", &ECDSA).is_none() && alone.default(&ECDSA).is_none());
        put(&place, &own);
        assert!(is(alone.find("other", &ECDSA), &own));
    }

    #[test]
    fn a_certificate_has_its_time() {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let year = |year: u64| Duration::from_secs((year - 1970) * 31_557_600 + 86_400 * 180);
        let at = |now| timely(certificate.der(), now);
        assert_eq!(at(year(2019)), Err(Untimely::NotYet));
        assert_eq!(at(year(2020)), Ok(()));
        assert_eq!(at(year(2021)), Err(Untimely::Expired));
        assert_eq!(not_after(certificate.der()), 1_609_459_200);
    }
}
