//! Power cuts: whatever was written after the last sync is lost, kept or torn, in any mixture.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io;
use std::sync::{Arc, Mutex};

use myelin_catalog::{Chain, Op};
use proptest::prelude::*;

use super::*;

/// A disk that knows what it has only heard of.
#[derive(Clone, Debug, Default)]
struct Platter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
    /// Changes until the power is cut.
    left: usize,
}

#[derive(Clone, Debug)]
enum Write {
    Len(usize),
    Bytes(usize, Vec<u8>),
}

fn apply(image: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Len(len) => image.resize(*len, 0),
        Write::Bytes(offset, bytes) => {
            let end = offset + bytes.len();
            // A write that outran a lost growth of the file makes the file grow, as on a real disk.
            image.resize(image.len().max(end), 0);
            image[*offset..end].copy_from_slice(bytes);
        }
    }
}

impl Platter {
    fn with(image: Vec<u8>, left: usize) -> Self {
        Self(Arc::new(Mutex::new(State { live: image.clone(), synced: image, unsynced: Vec::new(), left })))
    }

    fn change(&self, write: Write) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.spend()?;
        apply(&mut state.live, &write);
        state.unsynced.push(write);
        Ok(())
    }

    /// What is on the disk after the cut: of each unsynced write nothing, half or all, as `choices` say.
    fn after_cut(&self, choices: &[u8]) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut image = state.synced.clone();
        for (write, choice) in state.unsynced.iter().zip(choices.iter().cycle()) {
            match (choice % 3, write) {
                (0, _) => {}
                (1, Write::Bytes(offset, bytes)) => {
                    apply(&mut image, &Write::Bytes(*offset, bytes[..bytes.len() / 2].into()))
                }
                _ => apply(&mut image, write),
            }
        }
        image
    }
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("the power is cut"))?;
        Ok(())
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let state = self.0.lock().unwrap();
        let bytes = state.live.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Write::Len(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.spend()?;
        state.synced = state.live.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Write::Bytes(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}

fn open(platter: &Platter) -> Result<RedbLog, StoreError> {
    RedbLog::open(platter.clone(), "platter".into())
}

/// Reads the log to its end, checking the chain.
fn verified_rev(log: &RedbLog) -> u64 {
    let mut chain = Chain::new();
    for bytes in log.read_after(0, usize::MAX).unwrap() {
        chain.accept_encoded(&bytes).unwrap();
    }
    chain.finish(&log.head()).unwrap();
    chain.head().rev
}

/// Appends until the power is cut, and says up to where the log promised.
fn append_until_cut(log: &mut RedbLog, records_max: u64) -> u64 {
    for _ in 0..records_max {
        let op = Op::RolledBack { to: log.head().rev };
        let record = Record::after(&log.head(), op, &"a".repeat(200), 0);
        if log.append(&record).is_err() {
            let head = log.head();
            assert_eq!(log.append(&record).unwrap_err().code(), "store-failed", "nobody knows what is there");
            assert_eq!(log.head(), head);
            break;
        }
    }
    log.head().rev
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_promised_record_survives_every_cut(
        before in 0u64..8, left in 0usize..60, choices in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let whole = Platter::with(Vec::new(), usize::MAX);
        RedbLog::begin(whole.clone(), "platter").unwrap();
        let mut promised = append_until_cut(&mut open(&whole).unwrap(), before);
        prop_assert_eq!(promised, before);

        let platter = Platter::with(whole.0.lock().unwrap().live.clone(), left);
        if let Ok(mut log) = open(&platter) {
            promised = append_until_cut(&mut log, 40);
            // What comes after the cut does not happen: the log is not closed in order.
            std::mem::forget(log);
        }
        let after = Platter::with(platter.after_cut(&choices), usize::MAX);
        let mut log = open(&after).unwrap();
        let found = verified_rev(&log);
        prop_assert!((promised..=promised + 1).contains(&found), "promised {} and found {}", promised, found);
        prop_assert_eq!(append_until_cut(&mut log, 2), found + 2);
    }
}
