//! Listening sockets that this process was given instead of binding them: by systemd (socket
//! activation), or by the process that it takes over from.
//!
//! Whoever gave them may hold them too, so that nobody is refused meanwhile. They are matched by
//! address with what the configuration asks for; what matches nothing is closed.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};

use crate::run::doors::overlap;

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Given {
    /// What the configuration of their last owner said, maybe with port 0.
    pub(super) asked: SocketAddr,
    /// What they are bound to.
    pub(super) address: SocketAddr,
    /// At least one.
    pub(super) sockets: Vec<TcpListener>,
}

/// Sockets that have not found their listener yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<Given>);

impl Inherited {
    /// What systemd passed to this process, if it did.
    pub(super) fn from_systemd() -> std::io::Result<Self> {
        let mut inherited = Self::default();
        for fd in sd_notify::listen_fds()? {
            // SAFETY: the variables that systemd sets say that this descriptor is open and meant for
            // this process, by its id; nothing else of this program opens or takes it, and this
            // function is called once, at the start.
            #[expect(unsafe_code, reason = "the environment names descriptors by number")]
            let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
            let address = socket.local_addr()?;
            inherited.add(address, address, socket);
        }
        Ok(inherited)
    }

    /// One more socket; those of one address belong together.
    pub(super) fn add(&mut self, asked: SocketAddr, address: SocketAddr, socket: TcpListener) {
        match self.0.iter_mut().find(|given| given.address == address) {
            Some(given) => given.sockets.push(socket),
            None => self.0.push(Given { asked, address, sockets: vec![socket] }),
        }
    }

    /// Those for an address of the configuration.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<Given> {
        let is_meant = |given: &Given| given.address == address || given.asked == address;
        self.0.iter().position(is_meant).map(|place| self.0.swap_remove(place))
    }

    /// Whether a client of `address` could be accepted at one of them.
    pub(super) fn overlaps(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|given| overlap(given.address, address))
    }

    /// Addresses that the configuration doesn't ask for.
    pub(super) fn unused(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|given| given.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (SocketAddr, TcpListener) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    #[test]
    fn sockets_are_found_by_their_address_and_by_what_was_asked_for() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (mut inherited, (address, first)) = (Inherited::default(), socket());
        let (other, third) = socket();
        let second = first.try_clone().unwrap();
        inherited.add(any, address, first);
        inherited.add(any, address, second);
        inherited.add(other, other, third);
        assert!(inherited.overlaps(other) && !inherited.overlaps(any));
        assert_eq!(inherited.take(any).map(|given| given.sockets.len()), Some(2));
        assert!(inherited.take(any).is_none());
        assert_eq!(inherited.unused().collect::<Vec<_>>(), [other]);
        assert_eq!(inherited.take(other).map(|given| given.address), Some(other));
        assert!(!inherited.overlaps(other));
    }
}
