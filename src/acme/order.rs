//! One order with a CA: an account, a proof for the host, a key, a certificate (RFC 8555 section 7.4).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, ExternalAccountKey, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::acme::client::Client;
use crate::acme::store::{self, Store, StoreError};
use crate::config::types::{Acme, Challenge};
use crate::tls::automatic::{InUse, Outcome};
use crate::tls::challenges::{Challenges, Shown};
use crate::tls::names;

/// What passes by itself is tried again this often at once.
const TRIES: u32 = 2;
/// How a CA is asked whether it has looked, or signed.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(100));
/// Letters of what a CA says that are repeated.
const SHOWN: usize = 600;

const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("the CA says: {text}")]
    Refused { kind: String, text: String },
    #[error("asking the CA: {0}")]
    Unreachable(String),
    #[error("the CA offers no {0} for this host")]
    NotOffered(&'static str),
    #[error("the CA did not find the proof: {0}")]
    Unproved(String),
    #[error("what the CA sent is of no use: {0}")]
    Unfit(String),
    #[error("it was not over within {0:?}")]
    Late(Duration),
    #[error("making a key and what it signs: {0}")]
    Key(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Why {
    /// The label in metrics.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { .. } | Self::NotOffered(_) | Self::Unproved(_) => Outcome::Refused,
            Self::Unreachable(_) | Self::Unfit(_) | Self::Late(_) => Outcome::Unreachable,
            Self::Key(_) | Self::Store(_) => Outcome::Failed,
        }
    }

    fn is(&self, problem: &str) -> bool {
        matches!(self, Self::Refused { kind, .. } if kind == problem)
    }
}

impl From<instant_acme::Error> for Why {
    fn from(error: instant_acme::Error) -> Self {
        match error {
            instant_acme::Error::Api(problem) => {
                let kind = problem.r#type.clone().unwrap_or_default();
                Self::Refused { kind, text: told(&problem) }
            }
            other => Self::Unreachable(tame(&other.to_string())),
        }
    }
}

impl From<rcgen::Error> for Why {
    fn from(error: rcgen::Error) -> Self {
        Self::Key(error.to_string())
    }
}

/// Why there is none, and how long the CA wants to be left alone.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: Why,
    pub(super) wait: Option<Duration>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { why: error.into(), wait: None }
    }
}

/// A problem in the CA's own words (RFC 7807), with those of its parts.
fn told(problem: &Problem) -> String {
    let own = [&problem.detail, &problem.r#type];
    let parts = problem.subproblems.iter().map(ToString::to_string);
    let words: Vec<String> = own.into_iter().flatten().cloned().chain(parts).collect();
    tame(&words.join("; "))
}

/// On one line, and not too long.
fn tame(text: &str) -> String {
    let tame = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(SHOWN).map(tame).collect()
}

/// Gets a certificate for `domain`, and keeps it.
pub(super) async fn order(
    acme: &Acme,
    domain: &str,
    store: &Store,
    challenges: &Arc<Challenges>,
) -> Result<InUse, Failure> {
    let client = Client::new(&acme.ca);
    let mut tries = TRIES;
    loop {
        let why = match attempt(acme, domain, store, challenges, &client).await {
            Ok(issued) => return Ok(issued),
            Err(why) => why,
        };
        let is_unknown = why.is(NO_ACCOUNT);
        if tries == 0 || !(is_unknown || why.is(BAD_NONCE)) {
            return Err(Failure { why, wait: client.wait() });
        }
        tries -= 1;
        if is_unknown {
            tracing::warn!(directory = acme.directory, "the CA does not know the account any more");
            store.forget_account()?;
        }
    }
}

async fn attempt(
    acme: &Acme,
    domain: &str,
    store: &Store,
    challenges: &Arc<Challenges>,
    client: &Client,
) -> Result<InUse, Why> {
    let account = account(acme, store, client).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    store.note_order(domain, now.as_secs())?;
    let identifiers = [Identifier::Dns(domain.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    // Shown until the CA has seen them.
    let shown = prove(&mut order, acme.challenge, domain, challenges).await?;
    let seen = order.poll_ready(&POLLING).await;
    drop(shown);
    if !matches!(seen, Ok(OrderStatus::Ready)) {
        let seen = seen.err().map(Why::from);
        return Err(why_unproved(&mut order)
            .await
            .or(seen)
            .unwrap_or_else(|| Why::Unproved("it does not say why".to_owned())));
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&POLLING).await?;
    let pem = format!("{}{chain}", key.serialize_pem());
    let issued = store::in_use(pem.as_bytes(), domain).map_err(|why| Why::Unfit(tame(&why)))?;
    if names::timely(&issued.key.cert[0], now) == Err(names::Untimely::Expired) {
        return Err(Why::Unfit("it has expired".to_owned()));
    }
    store.keep_certificate(domain, &pem)?;
    Ok(issued)
}

/// The account that is kept, or a new one.
async fn account(acme: &Acme, store: &Store, client: &Client) -> Result<Account, Why> {
    let contact = acme.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let builder = Account::builder_with_http(Box::new(client.clone()));
    if let Some(mut kept) = store.account()? {
        let credentials = serde_json::from_value(kept.credentials.clone());
        // What the parser says might repeat some of it.
        let credentials =
            credentials.map_err(|_| Why::Key("the kept account has no key of use".to_owned()))?;
        let account = builder.from_credentials(credentials).await?;
        if kept.email != acme.email {
            account.update_contacts(&contact).await?;
            kept.email.clone_from(&acme.email);
            store.keep_account(&kept)?;
        }
        return Ok(account);
    }
    // The configuration says so, or it would not have been taken.
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = acme.external_account.as_ref();
    let external = external.map(|it| ExternalAccountKey::new(it.key_id.clone(), &it.key));
    let (account, credentials) =
        builder.create(&new, acme.directory.clone(), external.as_ref()).await?;
    let credentials = serde_json::to_value(&credentials)
        .map_err(|_| Why::Key("the new account cannot be written".to_owned()))?;
    store.keep_account(&store::Account { email: acme.email.clone(), credentials })?;
    tracing::info!(directory = acme.directory, account = account.id(), "account made");
    Ok(account)
}

/// Shows what the CA wants to see, and tells it so.
async fn prove(
    order: &mut Order,
    challenge: Challenge,
    domain: &str,
    challenges: &Arc<Challenges>,
) -> Result<Vec<Shown>, Why> {
    let kind = match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // The CA may remember an earlier proof.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let handle = authorization.challenge(kind.clone());
        let mut handle = handle.ok_or(Why::NotOffered(challenge.word()))?;
        shown.push(show(&handle, challenge, domain, challenges)?);
        handle.set_ready().await?;
    }
    Ok(shown)
}

fn show(
    handle: &ChallengeHandle<'_>,
    challenge: Challenge,
    domain: &str,
    challenges: &Arc<Challenges>,
) -> Result<Shown, Why> {
    let proof = handle.key_authorization();
    match challenge {
        Challenge::Http01 => {
            // RFC 8555 section 8.3: it will be a part of a path and of an answer of ours.
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            let is_token =
                (1..=256).contains(&handle.token.len()) && handle.token.bytes().all(safe);
            if !is_token {
                return Err(Why::Unfit("its token is no base64url".to_owned()));
            }
            Ok(challenges.tell(&handle.token, proof.as_str()))
        }
        Challenge::TlsAlpn01 => {
            Ok(challenges.show(domain, certificate(domain, proof.digest().as_ref())?))
        }
    }
}

/// What a CA wants to see in a handshake (RFC 8737 section 3).
fn certificate(domain: &str, digest: &[u8]) -> Result<CertifiedKey, Why> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // That they match is known here, and could not be looked at: the extension is a critical one.
    let key = ring::sign::any_supported_type(&key).map_err(|error| Why::Key(error.to_string()))?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// What the CA saw instead of a proof, as far as it tells.
async fn why_unproved(order: &mut Order) -> Option<Why> {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        found.extend(state.challenges.iter().filter_map(|it| it.error.as_ref()).map(told));
    }
    (!found.is_empty()).then(|| Why::Unproved(found.join("; ")))
}
