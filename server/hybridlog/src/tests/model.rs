//! Random commands against a BTreeMap, with regions so small that keys cross every tier.

use super::{Engine, tiny};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Get(u8),
    Set(u8, usize),
    Append(u8, usize),
    Delete(u8),
    Expire(u8, u64),
    Scan(usize),
    /// Many bytes at once: pushes what was written before to disk.
    Fill(u8),
    /// So many pages of the log's beginning are compacted.
    Compact(u8),
    /// Everything goes, and the index begins anew.
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..24u8;
    let len = prop_oneof![4 => 0..64usize, 2 => 64..1200usize, 1 => 3000..4040usize];
    prop_oneof![
        4 => key.clone().prop_map(Op::Get),
        4 => (key.clone(), len).prop_map(|(key, len)| Op::Set(key, len)),
        2 => (key.clone(), 0..200usize).prop_map(|(key, len)| Op::Append(key, len)),
        2 => key.clone().prop_map(Op::Delete),
        1 => (key, 0..3u64).prop_map(|(key, at)| Op::Expire(key, at)),
        1 => (1..5usize).prop_map(Op::Scan),
        1 => (100..110u8).prop_map(Op::Fill),
        2 => (1..12u8).prop_map(Op::Compact),
        1 => (0..4u8).prop_map(|one| if one == 0 { Op::Forget } else { Op::Scan(3) }),
    ]
}

fn value(len: usize, turn: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + turn * 7) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_commands_answers_as_a_map_does(ops in proptest::collection::vec(op(), 1..120)) {
        let engine = Engine::new(tiny(1));
        let mut compactor = engine.compactor();
        let mut map: BTreeMap<Vec<u8>, (Vec<u8>, u64)> = BTreeMap::new();
        for (turn, op) in ops.into_iter().enumerate() {
            match op {
                Op::Get(key) => {
                    let key = vec![b'k', key];
                    prop_assert_eq!(engine.get(&key), map.get(&key).map(|entry| entry.0.clone()));
                }
                Op::Set(key, len) => {
                    let key = vec![b'k', key];
                    engine.set(&key, &value(len, turn)).unwrap();
                    map.insert(key, (value(len, turn), 0));
                }
                Op::Append(key, len) => {
                    let key = vec![b'k', key];
                    let entry = map.entry(key.clone()).or_default();
                    engine.append(&key, &value(len, turn)).unwrap();
                    entry.0.extend(value(len, turn));
                }
                Op::Delete(key) => {
                    let key = vec![b'k', key];
                    prop_assert_eq!(engine.delete(&key).unwrap(), map.remove(&key).is_some());
                }
                Op::Expire(key, at) => {
                    let key = vec![b'k', key];
                    let entry = map.get_mut(&key);
                    prop_assert_eq!(engine.expire(&key, at), entry.map(|entry| std::mem::replace(&mut entry.1, at)));
                }
                Op::Scan(buckets) => {
                    let mut seen = engine.scan(buckets);
                    seen.sort();
                    let all: Vec<_> = map.iter().map(|(key, entry)| (key.clone(), entry.0.clone())).collect();
                    prop_assert_eq!(seen, all);
                }
                Op::Compact(pages) => {
                    let _ = (0..pages).all(|_| engine.compact(&mut compactor).unwrap());
                    let stats = engine.store.stats();
                    prop_assert!(stats.begin <= stats.head && stats.file_bytes <= stats.tail - stats.begin + 4096);
                }
                Op::Forget => {
                    engine.worker.pin().exclusive().forget_all();
                    map.clear();
                }
                Op::Fill(key) => {
                    for n in 0..8 {
                        engine.set(&[b'f', key, n], &value(3500, turn)).unwrap();
                        map.insert(vec![b'f', key, n], (value(3500, turn), 0));
                    }
                }
            }
        }
        for (key, entry) in &map {
            prop_assert_eq!(engine.get(key), Some(entry.0.clone()));
        }
    }
}
