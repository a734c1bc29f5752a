//! A short run of each fuzz target (tests/fuzz/targets.rs): inputs are examples that are right, changed at random.
//! `CUSTODY_FUZZ` says how many each target gets, `CUSTODY_SEED` which. libFuzzer runs the same targets for
//! longer (`make soak`); with `CUSTODY_CORPUS` the examples are written there for it, and nothing else is done.

#[path = "fuzz/files.rs"]
mod files;
#[path = "fuzz/records.rs"]
mod records;
#[path = "fuzz/ssh.rs"]
mod ssh;
#[path = "fuzz/targets.rs"]
mod targets;

use custody_core::event::ByteString;
use custody_tests::random::Random;
use targets::TARGETS;

/// Changes inputs.
struct Changes(Random);

impl Changes {
    fn byte(&mut self) -> u8 {
        self.0.number().to_le_bytes()[0]
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.0.below(limit as u64)).unwrap_or(0)
    }

    /// One of the seeds with up to eight changes: bits, bytes, lengths, pieces of another seed.
    fn changed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(9) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.byte()),
                4 if at + 4 <= bytes.len() => {
                    let odd = [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 255, 65_536];
                    bytes[at..at + 4].copy_from_slice(&odd[self.below(odd.len())].to_be_bytes());
                }
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let piece = other[from..(from + self.below(64)).min(other.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                _ => {}
            }
        }
        bytes
    }
}

/// Gives a target its inputs. A panic names the input that caused it.
fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = (target.seeds)();
    if let Some(corpus) = std::env::var_os("CUSTODY_CORPUS") {
        let folder = std::path::Path::new(&corpus).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("example-{n}")), seed).unwrap();
        }
        return;
    }
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().expect("a number"));
    let (inputs, seed) = (number("CUSTODY_FUZZ", target.inputs), number("CUSTODY_SEED", 20_261_125));
    let mut changes = Changes(Random(seed));
    for _ in 0..inputs {
        let input = changes.changed(&seeds);
        let outcome = std::panic::catch_unwind(|| (target.body)(&input));
        assert!(outcome.is_ok(), "{name} panicked on {:?}", ByteString::from(input.as_slice()));
    }
}

macro_rules! fuzzed {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            fuzz(stringify!($name));
        }
    )*
        #[test]
        fn no_target_is_left_out() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            for name in names {
                let program = custody_tests::root().join(format!("fuzz/fuzz_targets/{name}.rs"));
                assert!(program.is_file(), "{} is missing", program.display());
            }
        }
    };
}
fuzzed!(records events mappings notes proofs tiles recordings changes messages keys transport packets kexinit authentication relay files);
