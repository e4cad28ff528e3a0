//! Who may try how often (S23), in bounded memory.
//!
//! Attempts are counted where they come from, and where they aim:
//! - an address (an IPv6 /64) has a bucket for everything it tries;
//! - an address has a smaller one for each account whose password it got wrong;
//! - an account has one for wrong passwords from everywhere. An address from which its owner has signed in before does
//!   not draw on it, so that somebody who guesses at an account does not lock its owner out.
//!
//! Handles are counted whether or not there is such an account: a limit must not tell.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

/// Entries of each table. An entry takes about 100 bytes.
const ENTRIES: usize = 65_536;

/// How fast and how deep a bucket is.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Attempts at once.
    burst: u32,
    /// Milliseconds until another one is allowed.
    every_ms: u64,
}

/// Everything one address tries: a family or an office behind one address signs in without noticing.
const ADDRESS: Rate = Rate { burst: 30, every_ms: 4_000 };
/// New accounts from one address.
const SIGN_UPS: Rate = Rate { burst: 10, every_ms: 60_000 };
/// Refreshes from one address: cheap, but each is a write of the log.
const REFRESHES: Rate = Rate { burst: 120, every_ms: 500 };
/// Wrong passwords of one account from one address: enough to remember which one it was.
const PAIR: Rate = Rate { burst: 8, every_ms: 60_000 };
/// Wrong passwords of one account from strangers everywhere: 2,900 a day is hopeless against any password not on a list.
const ACCOUNT: Rate = Rate { burst: 60, every_ms: 30_000 };

/// Token buckets in a table that never grows beyond its size: two generations, of which the older goes when the younger
/// is half the table. What is used stays; what is forgotten is what nobody came back for.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    young: HashMap<K, Bucket>,
    old: HashMap<K, Bucket>,
}

/// When the bucket will be full again, in milliseconds: all the state there is.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at_ms: u64,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, young: HashMap::new(), old: HashMap::new() }
    }

    /// How long to wait until there is one to take, in milliseconds; 0: there is.
    fn wait(&mut self, key: &K, now_ms: u64) -> u64 {
        let full_at_ms = self.full_at(key).max(now_ms);
        let depth = u64::from(self.rate.burst) * self.rate.every_ms;
        (full_at_ms + self.rate.every_ms).saturating_sub(now_ms + depth)
    }

    /// Takes one, whether or not there is one.
    fn take(&mut self, key: K, now_ms: u64) {
        let depth = u64::from(self.rate.burst) * self.rate.every_ms;
        let full_at_ms = (self.full_at(&key).max(now_ms) + self.rate.every_ms).min(now_ms + depth);
        self.old.remove(&key);
        self.young.insert(key, Bucket { full_at_ms });
        if self.young.len() >= ENTRIES / 2 {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// Gives one back.
    fn give_back(&mut self, key: &K) {
        if let Some(bucket) = self.young.get_mut(key).or_else(|| self.old.get_mut(key)) {
            bucket.full_at_ms = bucket.full_at_ms.saturating_sub(self.rate.every_ms);
        }
    }

    fn full_at(&self, key: &K) -> u64 {
        self.young.get(key).or_else(|| self.old.get(key)).map_or(0, |bucket| bucket.full_at_ms)
    }
}

/// A part of the network that one party has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl Network {
    /// IPv4 as it is, IPv6 by its /64: the rest is the party's own choice.
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.into()),
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()),
        }
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct RateLimits {
    enabled: bool,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    address: Buckets<Network>,
    sign_ups: Buckets<Network>,
    refreshes: Buckets<Network>,
    pair: Buckets<(Network, String)>,
    account: Buckets<String>,
    /// Where accounts have signed in from: a set with the same way of forgetting.
    known: Buckets<(Network, String)>,
}

/// How long to wait, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooOften(pub(super) u64);

fn allowed(wait_ms: u64) -> Result<(), TooOften> {
    if wait_ms == 0 { Ok(()) } else { Err(TooOften(wait_ms)) }
}

impl RateLimits {
    /// All limits, or none: for load tests and development.
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            tables: Mutex::new(Tables {
                address: Buckets::new(ADDRESS),
                sign_ups: Buckets::new(SIGN_UPS),
                refreshes: Buckets::new(REFRESHES),
                pair: Buckets::new(PAIR),
                account: Buckets::new(ACCOUNT),
                known: Buckets::new(PAIR),
            }),
        }
    }

    /// Before a sign-up is looked at.
    pub(super) fn sign_up(&self, from: IpAddr, now_ms: u64) -> Result<(), TooOften> {
        self.one(from, now_ms, |tables| &mut tables.sign_ups)
    }

    /// Before a refresh is looked at.
    pub(super) fn refresh(&self, from: IpAddr, now_ms: u64) -> Result<(), TooOften> {
        self.one(from, now_ms, |tables| &mut tables.refreshes)
    }

    fn one(
        &self,
        from: IpAddr,
        now_ms: u64,
        table: impl Fn(&mut Tables) -> &mut Buckets<Network>,
    ) -> Result<(), TooOften> {
        if !self.enabled {
            return Ok(());
        }
        let network = Network::of(from);
        let mut tables = self.tables.lock();
        let buckets = table(&mut tables);
        allowed(buckets.wait(&network, now_ms))?;
        buckets.take(network, now_ms);
        Ok(())
    }

    /// Before a password is looked at. Counts as a failure until [`RateLimits::right`] says otherwise, so that many
    /// attempts at once are not many more.
    pub(super) fn attempt(&self, from: IpAddr, handle_key: &str, now_ms: u64) -> Result<(), TooOften> {
        if !self.enabled {
            return Ok(());
        }
        let network = Network::of(from);
        let pair = (network, handle_key.to_owned());
        let tables = &mut *self.tables.lock();
        allowed(tables.address.wait(&network, now_ms))?;
        allowed(tables.pair.wait(&pair, now_ms))?;
        let stranger = tables.known.full_at(&pair) == 0;
        if stranger {
            allowed(tables.account.wait(&pair.1, now_ms))?;
            tables.account.take(pair.1.clone(), now_ms);
        }
        tables.address.take(network, now_ms);
        tables.pair.take(pair, now_ms);
        Ok(())
    }

    /// The password was right: the attempt costs nothing, and the address is known from now on.
    pub(super) fn right(&self, from: IpAddr, handle_key: &str, now_ms: u64) {
        if !self.enabled {
            return;
        }
        let network = Network::of(from);
        let pair = (network, handle_key.to_owned());
        let tables = &mut *self.tables.lock();
        tables.address.give_back(&network);
        tables.pair.give_back(&pair);
        if tables.known.full_at(&pair) == 0 {
            tables.account.give_back(&pair.1);
        }
        tables.known.take(pair, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn attempts(limits: &RateLimits, from: IpAddr, handle: &str, now_ms: u64) -> u32 {
        (0..1_000).take_while(|_| limits.attempt(from, handle, now_ms).is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn a_bucket_empties_says_when_and_fills_again() {
        let limits = RateLimits::new(true);
        let from = ip("192.0.2.1");
        assert_eq!(attempts(&limits, from, "alice", NOW), PAIR.burst);
        assert_eq!(limits.attempt(from, "alice", NOW), Err(TooOften(PAIR.every_ms)));
        assert_eq!(attempts(&limits, from, "alice", NOW + PAIR.every_ms), 1);
    }

    #[test]
    fn an_address_runs_out_over_all_accounts_together() {
        let limits = RateLimits::new(true);
        let from = ip("192.0.2.1");
        let tried = (0..100).take_while(|number| limits.attempt(from, &format!("a{number}"), NOW).is_ok()).count();
        assert_eq!(u32::try_from(tried).unwrap(), ADDRESS.burst);
        assert_eq!(limits.attempt(ip("192.0.2.2"), "a0", NOW), Ok(()));
    }

    #[test]
    fn an_ipv6_party_cannot_multiply_itself_within_its_64() {
        let limits = RateLimits::new(true);
        assert_eq!(attempts(&limits, ip("2001:db8::1"), "alice", NOW), PAIR.burst);
        assert!(limits.attempt(ip("2001:db8::ffff:1"), "alice", NOW).is_err());
        assert!(limits.attempt(ip("2001:db8:0:1::1"), "alice", NOW).is_ok());
        assert!(limits.attempt(ip("::ffff:192.0.2.1"), "bob", NOW).is_ok());
        assert_eq!(Network::of(ip("::ffff:192.0.2.1")), Network::of(ip("192.0.2.1")));
    }

    #[test]
    fn guessing_from_everywhere_is_limited_and_does_not_lock_the_owner_out() {
        let limits = RateLimits::new(true);
        let home = ip("198.51.100.7");
        limits.attempt(home, "alice", NOW).unwrap();
        limits.right(home, "alice", NOW);
        let guesses =
            (0..250u8).take_while(|last| limits.attempt(IpAddr::from([203, 0, 113, *last]), "alice", NOW).is_ok());
        assert_eq!(u32::try_from(guesses.count()).unwrap(), ACCOUNT.burst);
        assert_eq!(limits.attempt(home, "alice", NOW), Ok(()));
        assert_eq!(limits.attempt(ip("203.0.113.251"), "bob", NOW), Ok(()), "other accounts are not concerned");
    }

    #[test]
    fn right_passwords_cost_nothing() {
        let limits = RateLimits::new(true);
        let office = ip("198.51.100.7");
        for number in 0..1_000 {
            let handle = format!("a{}", number % 50);
            limits.attempt(office, &handle, NOW).unwrap();
            limits.right(office, &handle, NOW);
        }
    }

    #[test]
    fn the_tables_are_bounded_and_keep_what_is_in_use() {
        let mut buckets = Buckets::new(PAIR);
        for _ in 0..PAIR.burst {
            buckets.take(u32::MAX, NOW);
        }
        for key in 0..4 * u32::try_from(ENTRIES).unwrap() {
            if key % 1_000 == 0 {
                buckets.take(u32::MAX, NOW);
            }
            buckets.take(key, NOW);
        }
        assert!(buckets.young.len() + buckets.old.len() <= ENTRIES);
        assert!(buckets.wait(&u32::MAX, NOW) > 0);
    }

    #[test]
    fn switched_off_there_are_no_limits() {
        let limits = RateLimits::new(false);
        assert_eq!(attempts(&limits, ip("192.0.2.1"), "alice", NOW), 1_000);
        assert!((0..1_000).all(|_| limits.sign_up(ip("192.0.2.1"), NOW).is_ok()));
    }
}
