//! Whatever text comes as a token: opening it never panics, and only what was sealed opens.
//!
//! Input: one byte of choices, then either a text to be opened as it is, or a place and a change to
//! make to a token, and the names that it is sealed for.

use burdock::affinity::token::{Claim, Keyring, MAX_TEXT, Opened};

const NONCE: [u8; 24] = *b"a nonce of 24 bytes long";
/// Letters of a name, of at most four bytes each; a configuration's are shorter.
const LONGEST_NAME: usize = 40;

/// Panics where a token opens that should not, or one doesn't that should.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    let keys = Keyring::new(&[[7; 32], [8; 32]]).expect("two keys");
    if choices & 1 == 0 {
        opens_as_it_is(&keys, rest);
    } else if let [place, second_place, change, names @ ..] = rest {
        let place = usize::from(u16::from_be_bytes([*place, *second_place]));
        refuses_the_altered(&keys, choices, place, *change, names);
    }
}

/// A text that opens is the one text of what it says.
fn opens_as_it_is(keys: &Keyring, text: &[u8]) {
    let mut buffer = Opened::default();
    if keys.open(text, &mut buffer).is_ok() {
        assert!(text.len() <= MAX_TEXT);
        let altered = [text, b"A"].concat();
        assert!(keys.open(&altered, &mut buffer).is_err());
    }
}

fn refuses_the_altered(keys: &Keyring, choices: u8, place: usize, change: u8, names: &[u8]) {
    let names = String::from_utf8_lossy(names);
    let mut names =
        names.split('\0').map(|name| name.chars().take(LONGEST_NAME).collect::<String>());
    let [service, version, instance] = [(); 3].map(|()| names.next().unwrap_or_default());
    let claim = Claim {
        service: &service,
        version: &version,
        instance: &instance,
        issued: 1_800_000_000 + u64::from(choices),
        renewed: 1_800_000_000 + u64::from(change),
        mark: 0,
    };
    let token = keys.seal(&claim, NONCE);
    let mut buffer = Opened::default();
    let opened = keys.open(token.as_bytes(), &mut buffer).expect("what was sealed opens");
    assert_eq!(Claim { mark: 0, ..opened }, claim);

    let mut altered = token.clone().into_bytes();
    let place = place % altered.len();
    match choices >> 1 & 3 {
        0 => altered[place] ^= change,
        1 => altered.truncate(place),
        2 => altered.insert(place, change),
        _ => {
            altered.remove(place);
        }
    }
    if altered != token.as_bytes() {
        assert!(keys.open(&altered, &mut buffer).is_err());
    }
    let others = Keyring::new(&[[9; 32]]).expect("a key");
    assert!(others.open(token.as_bytes(), &mut buffer).is_err());
}
