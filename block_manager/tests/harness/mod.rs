//! Runs operations on the manager, the model and the device, and compares them.

mod device;
mod kind;
mod model;

use device::Device;
use galley_blocks::{BlockManager, BlockTable};
use kind::Kind;
pub(crate) use model::Reached;
use model::{Model, ModelTable};
use std::collections::HashMap;

/// The configuration of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) n_blocks: usize,
    pub(crate) block_size: usize,
    pub(crate) prefix_caching: bool,
    /// Whether the hash has only seven values, so that most blocks collide.
    pub(crate) weak_hash: bool,
}

impl Config {
    pub(crate) fn random(random: &mut Random) -> Self {
        Config {
            n_blocks: 1 + random.below(48),
            block_size: 1 + random.below(5),
            prefix_caching: random.below(8) > 0,
            weak_hash: random.below(4) == 0,
        }
    }

    pub(crate) fn hash(&self) -> fn(u64, &[u32]) -> u64 {
        if self.weak_hash { weak_hash } else { plain_hash }
    }
}

fn weak_hash(parent: u64, tokens: &[u32]) -> u64 {
    plain_hash(parent, tokens) % 7
}

/// FNV-1a over whole words, with a rotation.
fn plain_hash(parent: u64, tokens: &[u32]) -> u64 {
    let words = std::iter::once(parent).chain(tokens.iter().map(|&t| u64::from(t)));
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(31)
    })
}

/// One operation. `kind` defines the meaning of the numbers, and every value of them is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: u8,
    pub(crate) table: u8,
    pub(crate) n: u8,
    pub(crate) seed: u16,
}

impl Op {
    pub(crate) fn random(random: &mut Random) -> Self {
        let (kind, table) = (random.below(100) as u8, random.below(256) as u8);
        Op { kind, table, n: random.below(40) as u8, seed: random.below(72) as u16 }
    }
}

/// A deliberate fault of the device or the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    IgnoreCopies,
    WriteWithoutReserving,
    WriteOneSlotWrong,
    LoseATable,
    ForgetToRollBack,
    /// Two draft models go by one number: only the device shows it.
    MixUpDraftModels,
    /// The KV of a draft model goes by the target's number: only the device shows it.
    MixUpDraftAndTarget,
}

/// A sequence: the kind of the KV that the device writes for it, its table, the model's table, and the
/// rest of its prompt.
struct Sequence {
    kind: Kind,
    table: BlockTable,
    model: ModelTable,
    prompt: Vec<u32>,
}

pub(crate) struct Harness {
    blocks: BlockManager,
    model: Model,
    device: Device,
    sequences: Vec<Sequence>,
    fault: Fault,
}

impl Harness {
    pub(crate) fn new(config: Config, fault: Fault) -> Self {
        let Config { n_blocks, block_size, prefix_caching, .. } = config;
        Harness {
            blocks: BlockManager::with_hash(n_blocks, block_size, prefix_caching, config.hash()),
            model: Model::new(config),
            device: Device::new(n_blocks, block_size),
            sequences: Vec::new(),
            fault,
        }
    }

    pub(crate) fn apply(&mut self, op: Op) -> Result<(), String> {
        let n = usize::from(op.n);
        match op.kind {
            0..18 => self.start(op)?,
            18 => {
                self.blocks.clear_prefix_cache();
                self.model.clear(&model_tables(&self.sequences));
            }
            _ if self.sequences.is_empty() => {}
            kind => {
                let at = usize::from(op.table) % self.sequences.len();
                match kind {
                    19..50 => self.reserve(at, n % 16)?,
                    50..74 => self.commit(at, n, op.seed)?,
                    74..78 => {
                        let sequence = &mut self.sequences[at];
                        if self.fault != Fault::ForgetToRollBack {
                            self.blocks.rollback(&mut sequence.table);
                        }
                        self.model.rollback(&mut sequence.model);
                    }
                    78..82 => {
                        let sequence = &mut self.sequences[at];
                        let n = sequence.table.n_tokens().saturating_sub(n % 8);
                        self.blocks.truncate(&mut sequence.table, n);
                        self.model.truncate(&mut sequence.model, n);
                        sequence.prompt.clear();
                    }
                    82..88 if self.sequences.len() < 8 => {
                        // A table can be forked only if no slots are reserved.
                        let sequence = &mut self.sequences[at];
                        self.blocks.rollback(&mut sequence.table);
                        self.model.rollback(&mut sequence.model);
                        let table = self.blocks.fork(&sequence.table);
                        let Sequence { kind, model, prompt, .. } = sequence;
                        let (kind, model, prompt) = (*kind, model.clone(), prompt.clone());
                        self.sequences.push(Sequence { kind, table, model, prompt });
                    }
                    _ => self.release(at),
                }
            }
        }
        self.model.settle(&model_tables(&self.sequences));
        self.look_up(op)?;
        self.verify()
    }

    /// Releases everything. All blocks must be free then, and every cached block must hold the KV
    /// of its tokens.
    pub(crate) fn finish(mut self) -> Result<Reached, String> {
        while !self.sequences.is_empty() {
            self.release(0);
            self.model.settle(&model_tables(&self.sequences));
        }
        self.blocks.check(&[])?;
        if self.blocks.n_free() != self.blocks.n_blocks() || self.blocks.n_used() != 0 {
            return Err(format!("{} blocks are free at the end", self.blocks.n_free()));
        }
        for (kind, mut tokens) in self.model.cached_prefixes() {
            tokens.push(0);
            let table = self.blocks.match_prefix(kind.of_manager(), &tokens);
            if table.n_tokens() + 1 != tokens.len() {
                return Err(format!("{tokens:?} is cached, {} tokens found", table.n_tokens()));
            }
            self.device.expect(table.ids(), kind, &tokens[..table.n_tokens()])?;
            self.blocks.release(table);
        }
        self.blocks.clear_prefix_cache();
        self.blocks.check(&[])?;
        Ok(self.model.reached)
    }

    /// The kind as the caller says it to the manager and to the model. A fault mixes it up with another.
    fn said(&self, kind: Kind) -> Kind {
        match (kind.model, self.fault) {
            (2, Fault::MixUpDraftModels) => Kind { model: 1, ..kind },
            (1, Fault::MixUpDraftAndTarget) => Kind { model: 0, ..kind },
            _ => kind,
        }
    }

    fn start(&mut self, op: Op) -> Result<(), String> {
        let n = usize::from(op.n) + 1;
        if self.sequences.len() == 8 {
            return Ok(());
        }
        let (kind, prompt) = (Kind::of(op.table), tokens(op.seed, n));
        let said = self.said(kind);
        let table = self.blocks.match_prefix(said.of_manager(), &prompt);
        let model = self.model.match_prefix(said, &prompt);
        if table.n_tokens() != model.tokens.len() {
            return Err(format!("{} tokens found, not {}", table.n_tokens(), model.tokens.len()));
        }
        if n > 0 && table.n_tokens() >= n {
            return Err("nothing was left to compute".into());
        }
        let prompt = prompt[table.n_tokens()..].to_vec();
        self.sequences.push(Sequence { kind, table, model, prompt });
        Ok(())
    }

    fn reserve(&mut self, at: usize, n: usize) -> Result<(), String> {
        if self.fault == Fault::WriteWithoutReserving {
            let Sequence { kind, table, .. } = &self.sequences[at];
            let n = table.n_tokens();
            if table.ids().len() * self.blocks.block_size_tokens() > n {
                self.device.scribble(table.ids(), *kind, n..n + 1)?;
            }
        }
        let mut models = model_tables(&self.sequences);
        let want = self.model.reserve(&mut models, at, n);
        let sequence = &mut self.sequences[at];
        let before =
            (sequence.table.ids().to_vec(), sequence.table.n_tokens(), self.blocks.n_free());
        let needed = self.blocks.blocks_needed(&sequence.table, n);
        let got = self.blocks.reserve(&mut sequence.table, n);
        match (&got, want) {
            (Ok(copies), Ok(want)) if copies.len() == want.n_copies && needed == want.needed => {}
            (Err(error), Err(want)) if error == &want && needed == want.needed => {
                let after = (
                    sequence.table.ids().to_vec(),
                    sequence.table.n_tokens(),
                    self.blocks.n_free(),
                );
                let kept = before == after;
                return kept.then_some(()).ok_or("a failed reserve changed something".into());
            }
            (got, want) => return Err(format!("{got:?} after {needed}, the model says {want:?}")),
        }
        sequence.model = models.swap_remove(at);

        // Write to every reserved slot at once, as draft tokens do.
        if self.fault != Fault::IgnoreCopies {
            let copies = got.unwrap_or_default();
            copies.iter().for_each(|copy| self.device.copy(copy.from, copy.to));
        }
        let start = sequence.table.n_tokens();
        self.device.scribble(sequence.table.ids(), sequence.kind, start..start + n)?;
        Ok(())
    }

    fn commit(&mut self, at: usize, n: usize, seed: u16) -> Result<(), String> {
        let sequence = &mut self.sequences[at];
        let mut step = std::mem::take(&mut sequence.prompt);
        if step.is_empty() {
            step = tokens(seed, n);
        }
        let n_now = step.len().min(sequence.model.reserved);
        sequence.prompt = step.split_off(n_now);

        let start = sequence.table.n_tokens();
        let all = [&sequence.model.tokens[..], &step].concat();
        self.device.write(sequence.table.ids(), sequence.kind, &all, start)?;
        if self.fault == Fault::WriteOneSlotWrong && n_now > 0 {
            self.device.scribble(sequence.table.ids(), sequence.kind, start..start + 1)?;
        }
        self.blocks.commit(&mut sequence.table, &step);
        self.model.commit(&mut sequence.model, &step);
        Ok(())
    }

    fn release(&mut self, at: usize) {
        let sequence = self.sequences.swap_remove(at);
        match self.fault {
            Fault::LoseATable => drop(sequence.table),
            _ => self.blocks.release(sequence.table),
        }
    }

    /// A lookup finds as many tokens as in the model. Its table is released at once.
    fn look_up(&mut self, op: Op) -> Result<(), String> {
        let (kind, prompt) = (self.said(Kind::of(op.kind)), tokens(op.seed ^ 1, 24));
        let table = self.blocks.match_prefix(kind.of_manager(), &prompt);
        let found = table.n_tokens();
        self.blocks.release(table);

        let mut models = model_tables(&self.sequences);
        models.push(self.model.match_prefix(kind, &prompt));
        self.model.settle(&models);
        let expected = models.pop().map_or(0, |table| table.tokens.len());
        self.model.settle(&models);
        if found != expected {
            return Err(format!("{found} tokens of {prompt:?} are cached, not {expected}"));
        }
        Ok(())
    }

    /// Checks everything that must hold between operations.
    fn verify(&self) -> Result<(), String> {
        let tables: Vec<&BlockTable> =
            self.sequences.iter().map(|sequence| &sequence.table).collect();
        self.blocks.check(&tables)?;

        let models = model_tables(&self.sequences);
        let n_drafts = self.blocks.n_used_by_draft_models();
        let got = (self.blocks.n_free(), self.blocks.n_used(), n_drafts);
        let n_held = self.model.n_held(&models);
        let n_drafts = self.model.n_held_by_draft_models(&models);
        let want = (self.blocks.n_blocks() - n_held, n_held, n_drafts);
        if got != want {
            return Err(format!("(free, used, drafts) are {got:?}, the model says {want:?}"));
        }

        // Tables share blocks as in the model: the ids and the model's blocks map one to one.
        let (mut ids, mut names) = (HashMap::new(), HashMap::new());
        for Sequence { kind, table, model, prompt } in &self.sequences {
            if (table.kind(), table.n_tokens()) != (model.kind.of_manager(), model.tokens.len()) {
                return Err(format!("{table:?} is {model:?} in the model"));
            }
            let all = [&model.tokens[..], prompt].concat();
            let hashes = (self.blocks.next_hash(table, &all), self.model.next_hash(model, &all));
            if hashes.0 != hashes.1 {
                return Err(format!("next hashes of {table:?} are {hashes:?}"));
            }
            let block_size = self.blocks.block_size_tokens() * model.kind.block_factor as usize;
            let n_full_or_partial = model.tokens.len().div_ceil(block_size);
            for (&id, &name) in table.ids().iter().zip(&model.blocks) {
                if *ids.entry(name).or_insert(id) != id || *names.entry(id).or_insert(name) != name
                {
                    return Err(format!("block {id} of {table:?} is shared otherwise: {model:?}"));
                }
            }
            if table.ids().len() < n_full_or_partial || table.ids().len() != model.blocks.len() {
                return Err(format!("{table:?} has {} blocks in the model", model.blocks.len()));
            }
            self.device.expect(table.ids(), *kind, &model.tokens)?;
        }
        Ok(())
    }
}

fn model_tables(sequences: &[Sequence]) -> Vec<ModelTable> {
    sequences.iter().map(|sequence| sequence.model.clone()).collect()
}

/// Tokens from a small family of texts: zeros and ones that agree up to some position and then
/// differ.
fn tokens(seed: u16, n: usize) -> Vec<u32> {
    let common = usize::from(seed) % 24;
    let mut text = Random::new(u64::from(seed) % 3);
    let mut rest = Random::new(u64::from(seed / 24));
    let random = |at| if at < common { text.below(2) } else { rest.below(2) };
    (0..n).map(random).map(|token| token as u32).collect()
}

/// A random generator that is good enough for tests (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}
