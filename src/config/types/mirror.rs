//! Copies of requests to another version.

/// What is sent to another version as well, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The version.
    pub to: String,
    /// Of the requests that go to others, in basis points.
    pub share: u32,
    /// Which.
    pub methods: Mirrored,
    /// The longest body, in bytes; with 0 requests that have one are not copied.
    pub max_body: u64,
    /// Copies that may be under way; others are left out.
    pub max_in_flight: u32,
}

impl Mirror {
    /// The share by default: all.
    pub const SHARE: u32 = 10_000;
    /// The longest body by default.
    pub const MAX_BODY: u64 = 64 * 1024;
    /// The longest body that may be asked for: it is held in memory.
    pub const LONGEST_BODY: u64 = 1024 * 1024;
    /// Copies under way by default.
    pub const MAX_IN_FLIGHT: u32 = 100;
}

/// Which requests are copied, by their method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mirrored {
    /// Those that only read (RFC 9110 section 9.2.1).
    #[default]
    Safe,
    /// All: what they do is done twice.
    All,
}

impl Mirrored {
    /// Each with its word in the configuration.
    pub const WORDS: [(&'static str, Self); 2] = [("safe", Self::Safe), ("all", Self::All)];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::All => "all",
        }
    }
}
