//! Sound files with random changes open and load or are refused, without a panic.

mod common;

use common::blocks::{self, Matrices, NARROW_MATRICES};
use common::exercise::{exercise, load};
use common::{CONFIG, Gguf, HEADER, models, safetensors, string};
use galley_model::Result;
use std::{fs, ops::Range, path::Path};

/// SplitMix64 with a fixed seed, so that every run has the same cases.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn within(&mut self, range: &Range<usize>) -> usize {
        range.start + self.below(range.len())
    }
}

/// One to three changes, all inside `range`.
fn mutate(bytes: &mut Vec<u8>, range: &Range<usize>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.within(range).min(bytes.len() - 1);
        let room = bytes.len() - at;
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = PIECES[random.below(PIECES.len())],
            3 if room >= 8 => {
                let value = LIES[random.below(LIES.len())];
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            4 if room >= 4 => {
                let value = LIES[random.below(LIES.len())] as u32;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            5 => drop(bytes.drain(at..at + room.min(1 + random.below(16)))),
            _ => {
                let copy = bytes[at..at + room.min(1 + random.below(16))].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// Bytes with a meaning in one of the formats.
const PIECES: &[u8] = b"\0\xff\x7f09-.e,:\"[]{}";

const LIES: [u64; 10] = [0, 1, 2, 32, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 63, u64::MAX];

/// Changes what the header of a GGUF file says of one of its matrices: type, columns, rows or place. Or
/// cuts the file off.
fn lie_about_a_matrix(bytes: &mut Vec<u8>, matrices: &Matrices, random: &mut Random) {
    let name = string(matrices[random.below(matrices.len())].0);
    let at = bytes.windows(name.len()).position(|window| window == name).expect("its entry");
    let (dims, kind, offset) = (at + name.len() + 4, at + name.len() + 20, at + name.len() + 24);
    let mut overwrite = |at: usize, new: &[u8]| bytes[at..at + new.len()].copy_from_slice(new);
    match random.below(4) {
        0 => overwrite(kind, &KINDS[random.below(KINDS.len())].to_le_bytes()),
        1 => {
            let sizes = [LIES[random.below(LIES.len())], 32 << random.below(8), u64::MAX / 18];
            let dim = dims + 8 * random.below(2);
            overwrite(dim, &sizes[random.below(sizes.len())].to_le_bytes());
        }
        2 => {
            let places = [LIES[random.below(LIES.len())], 32 * random.below(2000) as u64];
            overwrite(offset, &places[random.below(places.len())].to_le_bytes());
        }
        _ => bytes.truncate(random.below(bytes.len())),
    }
}

/// Types of tensors: floats, those with blocks, and others.
const KINDS: [u32; 16] = [0, 1, 30, 2, 3, 6, 7, 8, 12, 13, 14, 20, 10, 26, 39, 99];

/// Mutates `name` in a directory with `rest`, `cases` times, and exercises the model.
fn survive(name: &str, sound: &[u8], range: Range<usize>, rest: &[(&str, &[u8])], cases: usize) {
    let change = |bytes: &mut Vec<u8>, random: &mut Random| mutate(bytes, &range, random);
    survive_changes(name, sound, &change, &exercise, rest, cases);
}

/// Changes `name` in a directory with `rest`, `cases` times, and reads the model. Some cases must be read
/// and some must fail; otherwise the test proves nothing.
fn survive_changes(
    name: &str,
    sound: &[u8],
    change: &dyn Fn(&mut Vec<u8>, &mut Random),
    read: &dyn Fn(&Path) -> Result<()>,
    rest: &[(&str, &[u8])],
    cases: usize,
) {
    let directory = common::directory(rest);
    let path = directory.path().join(name);
    let mut random = Random(20_261_121);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..cases {
        let mut bytes = sound.to_vec();
        change(&mut bytes, &mut random);
        // A mapped file must not change, so every case is a new file.
        let _ = fs::remove_file(&path);
        fs::write(&path, &bytes).unwrap();
        match read(directory.path()) {
            Ok(()) => opened += 1,
            Err(error) => {
                assert!(error.to_string().contains(parent(&path)), "{error}");
                refused += 1;
            }
        }
    }
    println!("{name}: {opened} opened, {refused} refused");
    assert!(opened > cases / 100 && refused > cases / 100, "{opened} opened, {refused} refused");
}

fn parent(path: &Path) -> &str {
    path.parent().unwrap().to_str().unwrap()
}

#[test]
fn gguf() {
    let tiny = Gguf::tiny().bytes();
    survive("model.gguf", &tiny, 0..tiny.len(), &[], 6000);
    let header = 4..tiny.len() - 2000;
    survive("model.gguf", &tiny, header, &[], 6000);
}

/// A whole model in all types of blocks, which is loaded too.
#[test]
fn gguf_of_blocks() {
    let file = blocks::file_of(&NARROW_MATRICES, |name, n_weights| {
        let of_type = blocks::mixed(name);
        (of_type.kind, of_type.blocks(n_weights))
    });
    let sound = file.bytes();
    let read = |path: &Path| exercise(path).and_then(|()| load(path));
    let survive = |change: &dyn Fn(&mut Vec<u8>, &mut Random)| {
        survive_changes("model.gguf", &sound, change, &read, &[], 1000);
    };
    let last = string(NARROW_MATRICES[8].0);
    let at = sound.windows(last.len()).position(|window| window == last).expect("its entry");
    let header = 4..at + last.len() + 32;
    survive(&|bytes, random| mutate(bytes, &header, random));
    survive(&|bytes, random| mutate(bytes, &(header.end..bytes.len()), random));
    survive(&|bytes, random| lie_about_a_matrix(bytes, &NARROW_MATRICES, random));
}

#[test]
fn gguf_with_a_tokenizer() {
    let model = fs::read(models().join("smollm2.gguf")).unwrap();
    survive("model.gguf", &model, 0..14_000, &[], 1000);
}

#[test]
fn safetensors_file() {
    let weights = safetensors(HEADER, 48);
    let header = 0..8 + HEADER.len();
    let rest = [("config.json", CONFIG.as_bytes())];
    survive("model.safetensors", &weights, header, &rest, 8000);
}

#[test]
fn config() {
    let weights = safetensors(HEADER, 48);
    let rest = [("model.safetensors", &weights[..])];
    survive("config.json", CONFIG.as_bytes(), 0..CONFIG.len(), &rest, 8000);
}

/// The file is optional, so no defect of it refuses a model.
#[test]
fn generation_config() {
    let weights = safetensors(HEADER, 48);
    let rest = [("model.safetensors", &weights[..]), ("config.json", CONFIG.as_bytes())];
    let directory = common::directory(&rest);
    let mut random = Random(20_261_129);
    for _ in 0..2000 {
        let mut bytes = br#"{"eos_token_id": [1, 2]}"#.to_vec();
        mutate(&mut bytes, &(0..24), &mut random);
        fs::write(directory.path().join("generation_config.json"), &bytes).unwrap();
        exercise(directory.path()).unwrap();
    }
}

#[test]
fn index() {
    let weights = safetensors(HEADER, 48);
    let rest = [("config.json", CONFIG.as_bytes()), ("a.safetensors", &weights[..])];
    let index = br#"{"metadata": {"total_size": 48, "format": "of no interest"}, "weight_map": {"model.norm.weight": "a.safetensors"}}"#;
    survive("model.safetensors.index.json", index, 0..index.len(), &rest, 4000);
}
