//! Eligibility in one byte, which a request reads without a lock.

use crate::health::{Eligibility, Rehome};

const NEW_SESSIONS: u8 = 0x80;

/// One byte: bit 7 for new sessions, below it 0 or the reason's place in [`Rehome::ALL`] plus one.
pub(super) fn pack(eligibility: Eligibility) -> u8 {
    let reason = match eligibility.bound {
        Ok(()) => 0,
        Err(reason) => {
            let place = Rehome::ALL.iter().position(|known| *known == reason);
            place.expect("ALL lists every reason") as u8 + 1
        }
    };
    reason | if eligibility.new_sessions { NEW_SESSIONS } else { 0 }
}

pub(super) fn unpack(byte: u8) -> Eligibility {
    let bound = match byte & !NEW_SESSIONS {
        0 => Ok(()),
        place => Err(Rehome::ALL[usize::from(place) - 1]),
    };
    Eligibility { new_sessions: byte & NEW_SESSIONS != 0, bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eligibility_survives_packing() {
        for bound in Rehome::ALL.into_iter().map(Err).chain([Ok(())]) {
            for new_sessions in [true, false] {
                let eligibility = Eligibility { new_sessions, bound };
                assert_eq!(unpack(pack(eligibility)), eligibility);
            }
        }
    }
}
