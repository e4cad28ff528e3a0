//! How many connections there may be: in all, and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Whoever pays for an IPv6 address has its whole /64.
fn key(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Total,
    Address,
}

/// Counts connections.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
    total: usize,
    per_address: usize,
}

impl Admission {
    pub(super) fn new(total: usize, per_address: usize) -> Self {
        Self { counts: Mutex::default(), total, per_address }
    }

    /// Takes a place, which is free again when the guard is dropped. Loopback has no limit of its own: who can connect from
    /// there has the machine.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let key = key(address);
        let counts = &mut *self.counts.lock();
        if counts.total >= self.total {
            return Err(Full::Total);
        }
        let here = counts.by_address.entry(key).or_default();
        if *here >= self.per_address && !key.is_loopback() {
            return Err(Full::Address);
        }
        *here += 1;
        counts.total += 1;
        Ok(Place { admission: self.clone(), key })
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    key: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &mut *self.admission.counts.lock();
        counts.total -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.key) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_limit_and_places_come_back() {
        let admission = Arc::new(Admission::new(10, 2));
        let first = admission.enter(address("192.0.2.1")).unwrap();
        let _second = admission.enter(address("192.0.2.1")).unwrap();
        assert_eq!(admission.enter(address("192.0.2.1")).unwrap_err(), Full::Address);
        assert_eq!(admission.enter(address("::ffff:192.0.2.1")).unwrap_err(), Full::Address, "the same host");
        assert!(admission.enter(address("192.0.2.2")).is_ok());
        drop(first);
        assert!(admission.enter(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_whole_64_of_ipv6_counts_as_one_address() {
        let admission = Arc::new(Admission::new(10, 1));
        let _place = admission.enter(address("2001:db8::1")).unwrap();
        assert_eq!(admission.enter(address("2001:db8::ffff:1")).unwrap_err(), Full::Address);
        assert!(admission.enter(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn there_is_a_limit_of_all_and_nothing_is_left_behind() {
        let admission = Arc::new(Admission::new(3, 9));
        let places: Vec<_> = (1..=3).map(|n| admission.enter(address(&format!("192.0.2.{n}"))).unwrap()).collect();
        assert_eq!(admission.enter(address("127.0.0.1")).unwrap_err(), Full::Total);
        drop(places);
        let counts = admission.counts.lock();
        assert!(counts.total == 0 && counts.by_address.is_empty());
    }
}
