//! All sequences of what can be done to a spool, against a model: a list and two numbers.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::FileExt as _;

#[derive(Clone, Debug)]
enum Step {
    /// Records of these lengths.
    Append(Vec<usize>),
    Read {
        from: u64,
        records: usize,
        bytes: usize,
    },
    Acknowledge(u64),
    /// Killed and started: nothing is done at the end of a spool's life.
    Reopen,
    /// Killed while it writes so much (of 256) of an append.
    Torn(Vec<usize>, u8),
    /// The power fails, and the file of acknowledgements is empty.
    ForgetAcknowledged,
    /// Opened with another limit.
    Limit(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || proptest::collection::vec(1..500_usize, 1..5);
    let step = prop_oneof![
        6 => lengths().prop_map(Step::Append),
        2 => (0..60_u64, 0..9_usize, 0..2_000_usize).prop_map(|(from, records, bytes)| Step::Read { from, records, bytes }),
        3 => (0..80_u64).prop_map(Step::Acknowledge),
        2 => Just(Step::Reopen),
        2 => (lengths(), any::<u8>()).prop_map(|(lengths, cut)| Step::Torn(lengths, cut)),
        1 => Just(Step::ForgetAcknowledged),
        1 => (2_000..20_000_u64).prop_map(Step::Limit),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The bytes of a record of this length at a position.
fn payload(position: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (position as usize * 7 + at) as u8).collect()
}

#[derive(Default)]
struct Model {
    records: Vec<Vec<u8>>,
    first: u64,
}

impl Model {
    fn from(&self, from: u64) -> Vec<(u64, Vec<u8>)> {
        (0..).zip(self.records.iter().cloned()).skip(from.max(self.first) as usize).collect()
    }
}

fn batch(from: u64, lengths: &[usize]) -> Vec<Vec<u8>> {
    (from..).zip(lengths).map(|(position, length)| payload(position, *length)).collect()
}

fn run(steps: &[Step]) {
    let place = Place::new();
    let mut limit = 8_000;
    let open = |limit| recover::open(Arc::new(RealDisk), &place.directory, limit, SHORT).unwrap();
    let (mut spool, _) = open(limit);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(lengths) => {
                let records = batch(spool.next(), lengths);
                let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
                let before = spool.bytes();
                match spool.append(&records) {
                    Ok(()) => {
                        model.records.extend(records.iter().map(|record| record.to_vec()));
                        assert!(spool.bytes() <= limit, "{} of {limit}", spool.bytes());
                    }
                    Err(SpoolError::Full { bytes, .. }) => {
                        assert_eq!(bytes, before);
                        let added: usize = lengths.iter().map(|length| length + FRAME_BYTES).sum();
                        assert!(bytes + added as u64 + 600 > limit, "{bytes} and {added} of {limit}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Read { from, records, bytes } => {
                let read = spool.read(*from, *records, *bytes).unwrap();
                let mut wanted = model.from(*from);
                let mut sum = 0;
                let fits = wanted.iter().take_while(|(_, record)| {
                    sum += record.len();
                    sum <= *bytes
                });
                let fits = fits.count().max(1);
                wanted.truncate(fits.min(*records));
                assert_eq!(read, wanted);
            }
            Step::Acknowledge(next) => {
                spool.acknowledge(*next);
                model.first = model.first.max((*next).min(model.records.len() as u64));
            }
            Step::Reopen => {
                drop(spool);
                let recovery;
                (spool, recovery) = open(limit);
                let waiting = model.records.len() as u64 - model.first;
                assert_eq!((recovery.cut_bytes, recovery.records, recovery.missing), (0, waiting, 0));
            }
            Step::Torn(lengths, cut) => {
                let records = batch(spool.next(), lengths);
                let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
                let bytes = spool.encode(&records).unwrap();
                let written = &bytes[..bytes.len() * usize::from(*cut) / 256];
                let end = spool.segments.last().map(|newest| newest.bytes);
                drop(spool);
                if let Some(end) = end {
                    let file = OpenOptions::new().write(true).open(place.newest()).unwrap();
                    file.write_all_at(written, end).unwrap();
                }
                let recovery;
                (spool, recovery) = open(limit);
                assert_eq!(recovery.cut_bytes, end.map_or(0, |_| written.len() as u64));
            }
            Step::ForgetAcknowledged => {
                drop(spool);
                put(&place.directory.join("acknowledged"), &[0; 12]);
                let recovery;
                (spool, recovery) = open(limit);
                assert!(spool.first() <= model.first, "it skips what wasn't acknowledged");
                assert_eq!(recovery.missing, 0);
                model.first = spool.first();
            }
            Step::Limit(other) => {
                drop(spool);
                limit = *other;
                (spool, _) = open(limit);
            }
        }
        assert_eq!((spool.first(), spool.next()), (model.first, model.records.len() as u64));
        assert_eq!(spool.last(), model.records.last().map(Vec::as_slice));
        assert_eq!(all(&spool), model.from(0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn a_spool_is_a_list_that_forgets_what_was_acknowledged(steps in steps()) {
        run(&steps);
    }
}
