//! Who clients are, and what they may do.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::HashKey;

/// Whether a listener's clients come behind a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceptance {
    /// None does.
    #[default]
    Off,
    /// Those of trusted proxies may; nobody else.
    Accept,
    /// All do, and by way of trusted proxies.
    Require,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Which addresses may come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// With any, only these.
    pub allow: Vec<IpNet>,
    /// These never, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

impl Access {
    /// Whether whoever is at `address` may come.
    pub fn admits(&self, address: IpAddr) -> bool {
        if self.allow.is_empty() && self.deny.is_empty() {
            return true;
        }
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let address = address.to_canonical();
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// What clients may take of Burdock itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections and tunnels of all clients, 1 to 10000000.
    pub connections: Option<u32>,
    /// Connections and tunnels of one client's address, 1 to 1000000.
    pub connections_per_client: Option<u32>,
    /// So much of an IPv6 address makes a client, 1 to 128.
    pub ipv6_prefix: u8,
    /// Bytes of a request's head, 1 KiB to 64 KiB.
    pub head: usize,
    /// Fields of a request's head, 1 to 1000.
    pub fields: usize,
    /// Bytes of a request's target, 1 to 64 KiB.
    pub uri: usize,
    /// Bytes of request bodies that are kept for another try, of all requests.
    pub retry_memory: u64,
}

impl ClientLimits {
    /// The client at `address`.
    pub fn client_of(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(six) => {
                let beyond = u32::from(128 - self.ipv6_prefix.min(128));
                let mask = u128::MAX.checked_shl(beyond).unwrap_or(0);
                std::net::Ipv6Addr::from_bits(six.to_bits() & mask).into()
            }
            four => four,
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            // What a subscriber gets, at the least (RFC 6177).
            ipv6_prefix: 64,
            head: 64 * 1024,
            fields: 100,
            uri: 64 * 1024,
            retry_memory: 64 * 1024 * 1024,
        }
    }
}

/// What a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of its body.
    pub max_body: Option<u64>,
    /// Bytes of it that a client must send in a second, 1 B to 1 GiB.
    pub min_upload: Option<u64>,
    /// Bytes of its answer that a client must take in a second, 1 B to 1 GiB.
    pub min_download: Option<u64>,
}

/// How often a client may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// What makes a client; its address where a request has none of that.
    pub by: HashKey,
    /// So many requests, 1 to 1000000,
    pub requests: u32,
    /// in so long, 1 s to 1 h,
    pub per: Duration,
    /// of which so many may come at once, 1 to 1000000.
    pub burst: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_goes_before_allow_and_allow_is_all_there_is() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        for (allow, deny, address, expected) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.1.1", true),
            (&["10.0.0.0/8"], &[], "11.1.1.1", false),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.1.1", true),
            (&["10.0.0.0/8"], &[], "::1", false),
            (&[], &["10.0.0.0/8"], "10.1.1.1", false),
            (&[], &["10.0.0.0/8"], "::ffff:10.1.1.1", false),
            (&[], &["10.0.0.0/8"], "11.1.1.1", true),
            (&["10.1.0.0/16"], &["10.0.0.0/8"], "10.1.1.1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.1.1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.1.1", true),
        ] {
            let access = Access { allow: nets(allow), deny: nets(deny) };
            assert_eq!(access.admits(address.parse().unwrap()), expected, "{access:?} {address}");
        }
    }

    #[test]
    fn a_client_of_ipv6_is_a_network() {
        for (prefix, expected) in [(64, "2001:db8:1:2::"), (48, "2001:db8:1::"), (1, "::")] {
            let limits = ClientLimits { ipv6_prefix: prefix, ..ClientLimits::default() };
            let client = limits.client_of("2001:db8:1:2:3:4:5:6".parse().unwrap());
            assert_eq!(client, expected.parse::<IpAddr>().unwrap());
            let four = limits.client_of("::ffff:192.0.2.1".parse().unwrap());
            assert_eq!(four, "192.0.2.1".parse::<IpAddr>().unwrap());
        }
        let whole = ClientLimits { ipv6_prefix: 128, ..ClientLimits::default() };
        assert_eq!(whole.client_of("::1".parse().unwrap()), "::1".parse::<IpAddr>().unwrap());
    }
}
