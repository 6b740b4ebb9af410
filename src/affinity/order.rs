//! What an instance orders about the session of the request that it answers.

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// The session is over.
    Release,
    /// The session goes on at the instance of this name.
    Rebind(&'a str),
}

/// The order that a field's value is, if it is one.
pub fn parse(value: &[u8]) -> Option<Order<'_>> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    if text == "release" {
        return Some(Order::Release);
    }
    let name = text.strip_prefix("rebind=")?;
    (!name.is_empty()).then_some(Order::Rebind(name))
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The client was told to forget its token.
    Released,
    /// The client was given a token of another instance.
    Rebound,
    /// It was no order, or named an instance that is unknown or can't serve.
    Ignored,
}

impl Fate {
    /// Every fate, in the order of the metric's rows.
    pub const ALL: [Self; 3] = [Self::Released, Self::Rebound, Self::Ignored];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Rebound => "rebound",
            Self::Ignored => "ignored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_words_are_orders() {
        for (value, order) in [
            ("release", Some(Order::Release)),
            (" release ", Some(Order::Release)),
            ("rebind=10.0.0.1:80", Some(Order::Rebind("10.0.0.1:80"))),
            ("rebind=", None),
            ("Release", None),
            ("release, rebind=a", None),
            ("", None),
        ] {
            assert_eq!(parse(value.as_bytes()), order, "{value}");
        }
        assert_eq!(parse(b"rebind=\xff"), None);
    }

    #[test]
    fn every_fate_stands_at_its_place() {
        for (place, fate) in Fate::ALL.into_iter().enumerate() {
            assert_eq!(fate as usize, place);
        }
    }
}
