//! What every store must do, as one suite that each store's tests run.

#![allow(clippy::expect_used, reason = "a test suite: a failure is a panic")]

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{StateRead, StateStore, WriteBatch};

/// Runs every check, each on a store that `make` makes empty.
///
/// # Panics
/// At the first check that fails.
pub fn suite<S: StateStore + Sync>(make: impl Fn() -> S) {
    what_is_put_is_got_and_what_is_deleted_is_not(&make());
    the_last_operation_about_a_key_counts(&make());
    a_range_includes_its_start_and_excludes_its_end(&make());
    a_scan_goes_both_ways_and_stops_when_told(&make());
    empty_and_inverted_ranges_visit_nothing(&make());
    keys_order_as_bytes_not_as_text_or_numbers(&make());
    a_scan_sees_one_moment_of_the_store_and_all_of_a_batch_or_nothing(&make());
    large_values_and_empty_values_come_back(&make());
    many_batches_agree_with_a_sorted_map(&make());
}

fn put(store: &impl StateStore, rows: &[(&[u8], &[u8])]) {
    let mut batch = WriteBatch::default();
    for (key, value) in rows {
        batch.put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }
    store.write(&batch).expect("write");
}

fn get(store: &impl StateRead, key: &[u8]) -> Option<Bytes> {
    store.get(key).expect("get")
}

fn keys(store: &impl StateRead, from: &[u8], to: &[u8], descending: bool) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    store
        .scan(from, to, descending, &mut |key, _| {
            found.push(key.to_vec());
            true
        })
        .expect("scan");
    found
}

fn what_is_put_is_got_and_what_is_deleted_is_not(store: &impl StateStore) {
    assert_eq!(get(store, b"a"), None);
    put(store, &[(b"a", b"1"), (b"b", b"2")]);
    assert_eq!(get(store, b"a"), Some(Bytes::from_static(b"1")));
    let mut batch = WriteBatch::default();
    batch.delete(&b"a"[..]);
    batch.delete(&b"never there"[..]);
    store.write(&batch).expect("write");
    assert_eq!(get(store, b"a"), None);
    assert_eq!(get(store, b"b"), Some(Bytes::from_static(b"2")));
    store.write(&WriteBatch::default()).expect("an empty batch");
}

fn the_last_operation_about_a_key_counts(store: &impl StateStore) {
    let mut batch = WriteBatch::default();
    batch.put(&b"k"[..], &b"1"[..]);
    batch.delete(&b"k"[..]);
    batch.put(&b"k"[..], &b"2"[..]);
    batch.put(&b"gone"[..], &b"1"[..]);
    batch.delete(&b"gone"[..]);
    store.write(&batch).expect("write");
    assert_eq!(get(store, b"k"), Some(Bytes::from_static(b"2")));
    assert_eq!(get(store, b"gone"), None);
}

fn a_range_includes_its_start_and_excludes_its_end(store: &impl StateStore) {
    put(store, &[(b"a", b""), (b"b", b""), (b"bb", b""), (b"c", b"")]);
    assert_eq!(keys(store, b"b", b"c", false), [b"b".to_vec(), b"bb".to_vec()]);
    assert_eq!(keys(store, b"b", b"c", true), [b"bb".to_vec(), b"b".to_vec()]);
    // Ends that are not keys themselves.
    assert_eq!(keys(store, b"aa", b"bz", false), [b"b".to_vec(), b"bb".to_vec()]);
    assert_eq!(keys(store, b"aa", b"bz", true), [b"bb".to_vec(), b"b".to_vec()]);
}

fn a_scan_goes_both_ways_and_stops_when_told(store: &impl StateStore) {
    put(store, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]);
    for (descending, expected) in [(false, [b"1", b"2"]), (true, [b"3", b"2"])] {
        let mut seen = Vec::new();
        store
            .scan(b"a", b"z", descending, &mut |_, value| {
                seen.push(value.to_vec());
                seen.len() < 2
            })
            .expect("scan");
        assert_eq!(seen, expected);
    }
}

fn empty_and_inverted_ranges_visit_nothing(store: &impl StateStore) {
    put(store, &[(b"a", b""), (b"b", b"")]);
    for descending in [false, true] {
        assert!(keys(store, b"a", b"a", descending).is_empty());
        assert!(keys(store, b"b", b"a", descending).is_empty());
        assert!(keys(store, b"c", b"d", descending).is_empty());
    }
}

fn keys_order_as_bytes_not_as_text_or_numbers(store: &impl StateStore) {
    put(store, &[(&[0xff], b""), (&[0x00], b""), (&[0x00, 0x00], b""), (&[0x7f], b""), (&[0x80], b"")]);
    let expected: [&[u8]; 5] = [&[0x00], &[0x00, 0x00], &[0x7f], &[0x80], &[0xff]];
    assert_eq!(keys(store, &[], &[0xff, 0xff], false), expected);
}

fn a_scan_sees_one_moment_of_the_store_and_all_of_a_batch_or_nothing(store: &(impl StateStore + Sync)) {
    const ROUNDS: u64 = 300;
    let rows = |value: u64| {
        let mut batch = WriteBatch::default();
        for key in 0..20u8 {
            batch.put(vec![key], value.to_be_bytes().to_vec());
        }
        batch
    };
    store.write(&rows(0)).expect("write");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..=ROUNDS {
                store.write(&rows(value)).expect("write");
            }
        });
        let mut last = 0;
        while last < ROUNDS {
            let mut values = Vec::new();
            store
                .scan(&[0], &[20], false, &mut |_, value| {
                    values.push(u64::from_be_bytes(value.try_into().expect("eight bytes")));
                    true
                })
                .expect("scan");
            assert_eq!(values, vec![values[0]; 20], "a scan mixes two batches");
            assert!(values[0] >= last, "a later scan sees an earlier moment");
            last = values[0];
        }
    });
}

fn large_values_and_empty_values_come_back(store: &impl StateStore) {
    let large = vec![0x5a; 1 << 20];
    put(store, &[(b"large", &large), (b"empty", b"")]);
    assert_eq!(get(store, b"large").as_deref(), Some(&large[..]));
    assert_eq!(get(store, b"empty").as_deref(), Some(&b""[..]));
}

fn many_batches_agree_with_a_sorted_map(store: &impl StateStore) {
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    // A fixed multiplicative sequence stands for random: the suite is the same everywhere.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..200 {
        let mut batch = WriteBatch::default();
        for _ in 0..10 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = ((state >> 33) % 300).to_be_bytes().to_vec();
            if state >> 60 < 5 {
                model.remove(&key);
                batch.delete(key);
            } else {
                model.insert(key.clone(), state.to_be_bytes().to_vec());
                batch.put(key, state.to_be_bytes().to_vec());
            }
        }
        store.write(&batch).expect("write");
    }
    let mut found = Vec::new();
    store
        .scan(&[], &[0xff], false, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            true
        })
        .expect("scan");
    assert_eq!(found, model.into_iter().collect::<Vec<_>>());
}
