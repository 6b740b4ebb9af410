//! Nonces for new tokens. Asking the kernel for each would cost a client without a token a system call.

use std::cell::RefCell;

use crate::affinity::token::NONCE;

/// Fetched at once.
const STOCK: usize = 32;

struct Stock {
    fresh: [[u8; NONCE]; STOCK],
    left: usize,
}

thread_local! {
    static STOCKED: RefCell<Stock> = const {
        RefCell::new(Stock { fresh: [[0; NONCE]; STOCK], left: 0 })
    };
}

/// Random bits that nobody has seen; an error if the system has none.
pub(super) fn draw() -> Result<[u8; NONCE], getrandom::Error> {
    STOCKED.with_borrow_mut(|stock| {
        if stock.left == 0 {
            getrandom::fill(stock.fresh.as_flattened_mut())?;
            stock.left = STOCK;
        }
        stock.left -= 1;
        // What was given is not kept.
        Ok(std::mem::take(&mut stock.fresh[stock.left]))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_are_alike() {
        let drawn: HashSet<_> = (0..3 * STOCK + 1).map(|_| draw().unwrap()).collect();
        assert_eq!(drawn.len(), 3 * STOCK + 1);
        assert!(!drawn.contains(&[0; NONCE]));
    }
}
