//! How many connections clients have, in all and each; a tunnel is the connection that it came by.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Two workers seldom want the same one.
const SHARDS: usize = 16;

type Clients = HashMap<IpAddr, u32>;

/// Counts connections. As many clients are remembered as have one.
#[derive(Debug, Default)]
pub struct Seats {
    taken: AtomicU64,
    seed: RandomState,
    clients: [Mutex<Clients>; SHARDS],
}

/// There is none left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// A connection's place among all, held for as long as it or its tunnel lasts.
#[derive(Debug)]
pub(super) struct Seat(Arc<Seats>);

/// Its place among those of one client.
#[derive(Debug)]
pub(super) struct ClientSeat {
    seats: Arc<Seats>,
    client: IpAddr,
}

impl Seats {
    /// Connections and tunnels that clients have now.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place among `most`.
    pub(super) fn take(self: &Arc<Self>, most: Option<u32>) -> Result<Seat, Full> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        // Given back where it is dropped, even if it is none.
        let seat = Seat(Arc::clone(self));
        most.is_none_or(|most| before < u64::from(most)).then_some(seat).ok_or(Full)
    }

    /// One of `client`'s places, of which it may have `most`.
    pub(super) fn take_for(
        self: &Arc<Self>,
        client: IpAddr,
        most: u32,
    ) -> Result<ClientSeat, Full> {
        let mut clients = self.shard(client);
        let taken = clients.entry(client).or_default();
        if *taken >= most {
            return Err(Full);
        }
        *taken += 1;
        Ok(ClientSeat { seats: Arc::clone(self), client })
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Clients> {
        let place = self.seed.hash_one(client) as usize % SHARDS;
        self.clients[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ClientSeat {
    fn drop(&mut self) {
        let mut clients = self.seats.shard(self.client);
        let Some(taken) = clients.get_mut(&self.client) else { return };
        *taken -= 1;
        if *taken == 0 {
            clients.remove(&self.client);
            // A crowd that has left leaves no room behind.
            if clients.capacity() > 64 && clients.len() < clients.capacity() / 8 {
                clients.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_it_is_left() {
        let seats = Arc::new(Seats::default());
        let first = seats.take(Some(2)).unwrap();
        let _second = seats.take(Some(2)).unwrap();
        assert_eq!(seats.take(Some(2)).unwrap_err(), Full);
        assert_eq!(seats.taken(), 2);
        drop(first);
        let _third = seats.take(Some(2)).unwrap();
        let _more = seats.take(None).unwrap();
        assert_eq!(seats.taken(), 3);
    }

    #[test]
    fn clients_have_seats_of_their_own_and_are_forgotten_with_the_last() {
        let seats = Arc::new(Seats::default());
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        let first = seats.take_for(client(1), 1).unwrap();
        assert_eq!(seats.take_for(client(1), 1).unwrap_err(), Full);
        let others: Vec<_> = (2..200).map(|n| seats.take_for(client(n), 1).unwrap()).collect();
        drop(first);
        drop(others);
        let known: usize = seats.clients.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(known, 0);
        let _again = seats.take_for(client(1), 1).unwrap();
    }
}
