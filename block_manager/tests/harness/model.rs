//! The rules in their plainest form, and slow: the content of a block is a list of all tokens up to
//! its end, and its holders are counted on demand.

use super::{Config, Kind};
use galley_blocks::OutOfBlocks;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Identifies a block; a name is never reused.
type Name = u64;

#[derive(Clone, Debug)]
pub(crate) struct ModelTable {
    pub(crate) kind: Kind,
    pub(crate) tokens: Vec<u32>,
    pub(crate) blocks: Vec<Name>,
    pub(crate) reserved: usize,
}

/// A block that is held or cached.
struct Block {
    kind: Kind,
    /// Every token from the start of the sequence to the end of the block.
    cached: Option<Vec<u32>>,
    idle_since: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) needed: usize,
    pub(crate) n_copies: usize,
}

/// Event counts, to check that random histories reach every case.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) hit_tokens: u64,
    pub(crate) draft_hit_tokens: u64,
    pub(crate) draft_evictions: u64,
    pub(crate) evictions: u64,
    pub(crate) copies: u64,
    pub(crate) twins: u64,
    pub(crate) collisions: u64,
    pub(crate) written_in_place: u64,
    pub(crate) out_of_blocks: u64,
}

pub(crate) struct Model {
    config: Config,
    blocks: HashMap<Name, Block>,
    next_name: Name,
    clock: u64,
    pub(crate) reached: Reached,
}

impl Model {
    pub(crate) fn new(config: Config) -> Self {
        let reached = Reached::default();
        Model { config, blocks: HashMap::new(), next_name: 0, clock: 0, reached }
    }

    /// Number of distinct blocks in tables.
    pub(crate) fn n_held(&self, tables: &[ModelTable]) -> usize {
        self.blocks.keys().filter(|&&name| n_holders(tables, name) > 0).count()
    }

    /// Number of distinct blocks in tables of draft models.
    pub(crate) fn n_held_by_draft_models(&self, tables: &[ModelTable]) -> usize {
        let is_held = |name| n_holders(tables, name) > 0;
        let held = self.blocks.iter().filter(|(name, _)| is_held(**name));
        held.filter(|(_, block)| block.kind.model > 0).count()
    }

    pub(crate) fn cached_prefixes(&self) -> Vec<(Kind, Vec<u32>)> {
        let cached = |block: &Block| Some((block.kind, block.cached.clone()?));
        self.blocks.values().filter_map(cached).collect()
    }

    fn size(&self, kind: Kind) -> usize {
        self.config.block_size * kind.block_factor as usize
    }

    /// The cached blocks of a prompt, its last token excluded, and the number of their tokens.
    fn found(&self, kind: Kind, prompt: &[u32]) -> (Vec<Name>, usize) {
        let size = self.size(kind);
        let mut names = Vec::new();
        while (names.len() + 1) * size < prompt.len() {
            match self.cached_as(kind, &prompt[..(names.len() + 1) * size]) {
                Some(name) => names.push(name),
                None => break,
            }
        }
        let n_tokens = names.len() * size;
        (names, n_tokens)
    }

    pub(crate) fn match_prefix(&mut self, kind: Kind, prompt: &[u32]) -> ModelTable {
        let (blocks, n_tokens) = self.found(kind, prompt);
        let hits = match kind.model {
            0 => &mut self.reached.hit_tokens,
            _ => &mut self.reached.draft_hit_tokens,
        };
        *hits += n_tokens as u64;
        ModelTable { kind, tokens: prompt[..n_tokens].to_vec(), blocks, reserved: 0 }
    }

    pub(crate) fn reserve(
        &mut self,
        tables: &mut [ModelTable],
        at: usize,
        n: usize,
    ) -> Result<Reserved, OutOfBlocks> {
        let table = &tables[at];
        let (kind, size) = (table.kind, self.size(table.kind));
        let n_tokens = table.tokens.len();
        let reserved = table.reserved.max(n);
        let n_new = (n_tokens + reserved).div_ceil(size) - table.blocks.len();

        // The block that is written first, unless its slots are already reserved.
        let written = (n > 0 && table.reserved == 0 && !n_tokens.is_multiple_of(size))
            .then(|| table.blocks[n_tokens / size]);
        let copied = written.filter(|&name| {
            n_holders(tables, name) > 1
                || self.blocks.keys().any(|&block| self.is_child(block, name))
        });

        let needed = n_new + usize::from(copied.is_some());
        let free = self.config.n_blocks - self.n_held(tables);
        if needed > free {
            self.reached.out_of_blocks += 1;
            return Err(OutOfBlocks { needed, free });
        }
        if copied.is_some() {
            tables[at].blocks[n_tokens / size] = self.allocate(kind);
            self.reached.copies += 1;
            self.settle(tables);
        } else if let Some(name) = written {
            let forgotten = self.blocks.get_mut(&name).unwrap().cached.take();
            self.reached.written_in_place += u64::from(forgotten.is_some());
        }
        for _ in 0..n_new {
            let name = self.allocate(kind);
            tables[at].blocks.push(name);
        }
        tables[at].reserved = reserved;
        Ok(Reserved { needed, n_copies: usize::from(copied.is_some()) })
    }

    pub(crate) fn commit(&mut self, table: &mut ModelTable, tokens: &[u32]) {
        let (kind, size) = (table.kind, self.size(table.kind));
        let n_full = table.tokens.len() / size;
        table.tokens.extend(tokens);
        table.reserved -= tokens.len();
        for index in n_full..table.tokens.len() / size {
            let content = &table.tokens[..(index + 1) * size];
            let parent_is_cached =
                index == 0 || self.blocks[&table.blocks[index - 1]].cached.is_some();
            if !self.config.prefix_caching || !parent_is_cached {
                continue;
            }
            if let Some(twin) = self.cached_as(kind, content) {
                table.blocks[index] = twin;
                self.reached.twins += 1;
            } else if self.hash_is_taken(kind, content) {
                self.reached.collisions += 1;
            } else {
                let block = self.blocks.get_mut(&table.blocks[index]).unwrap();
                block.cached = Some(content.to_vec());
            }
        }
    }

    pub(crate) fn rollback(&self, table: &mut ModelTable) {
        self.truncate(table, usize::MAX);
    }

    pub(crate) fn truncate(&self, table: &mut ModelTable, n_tokens: usize) {
        table.tokens.truncate(n_tokens);
        table.blocks.truncate(table.tokens.len().div_ceil(self.size(table.kind)));
        table.reserved = 0;
    }

    pub(crate) fn clear(&mut self, tables: &[ModelTable]) {
        self.blocks.values_mut().for_each(|block| block.cached = None);
        self.settle(tables);
    }

    /// Updates blocks after tables have changed: a block in no table is idle if it is cached, and
    /// removed if not.
    pub(crate) fn settle(&mut self, tables: &[ModelTable]) {
        self.clock += 1;
        self.blocks.retain(|&name, block| {
            if n_holders(tables, name) > 0 {
                block.idle_since = None;
                return true;
            }
            block.idle_since = block.idle_since.or(Some(self.clock));
            block.cached.is_some()
        });
    }

    /// The hash of the next full block of a table that goes on with `tokens`, the last one excepted.
    pub(crate) fn next_hash(&self, table: &ModelTable, tokens: &[u32]) -> Option<u64> {
        let index = table.tokens.len() / self.size(table.kind);
        let end = (index + 1) * self.size(table.kind);
        let before = index.checked_sub(1).map(|before| &self.blocks[&table.blocks[before]]);
        let may_join = before.is_none_or(|before| before.cached.is_some());
        let is_found = self.config.prefix_caching && may_join && end < tokens.len();
        is_found.then(|| self.hash(table.kind, &tokens[..end]))
    }

    /// A new block. If there is no room, it replaces an idle block: one of a draft model if there is
    /// any, and the block that has been idle for longest. Of blocks that became idle together, the
    /// deepest is replaced first.
    fn allocate(&mut self, kind: Kind) -> Name {
        if self.blocks.len() == self.config.n_blocks {
            let idle = self.blocks.iter().filter_map(|(&name, block)| {
                let depth = block.cached.as_ref()?.len();
                Some((block.kind.model == 0, block.idle_since?, Reverse(depth), name))
            });
            let (is_of_target, _, _, name) = idle.min().expect("room was counted before");
            self.blocks.remove(&name);
            self.reached.evictions += 1;
            self.reached.draft_evictions += u64::from(!is_of_target);
        }
        self.next_name += 1;
        self.blocks.insert(self.next_name, Block { kind, cached: None, idle_since: None });
        self.next_name
    }

    fn cached_as(&self, kind: Kind, content: &[u32]) -> Option<Name> {
        let mut all = self.blocks.iter();
        let is_it = |block: &Block| {
            block.kind == kind && block.cached.as_ref().is_some_and(|cached| cached == content)
        };
        all.find(|(_, block)| is_it(block)).map(|(&name, _)| name)
    }

    fn is_child(&self, child: Name, parent: Name) -> bool {
        let (child, parent) = (&self.blocks[&child], &self.blocks[&parent]);
        let (Some(tokens), Some(before)) = (&child.cached, &parent.cached) else { return false };
        child.kind == parent.kind
            && tokens.len() == before.len() + self.size(child.kind)
            && tokens.starts_with(before)
    }

    /// Whether a cached block has the same hash. Only one block per hash can be found.
    fn hash_is_taken(&self, kind: Kind, content: &[u32]) -> bool {
        let hash = self.hash(kind, content);
        let is_it = |block: &Block| {
            block.cached.as_ref().is_some_and(|cached| self.hash(block.kind, cached) == hash)
        };
        self.blocks.values().any(is_it)
    }

    fn hash(&self, kind: Kind, content: &[u32]) -> u64 {
        let hash = self.config.hash();
        content.chunks(self.size(kind)).fold(hash(kind.salt, &[kind.model]), hash)
    }
}

fn n_holders(tables: &[ModelTable], name: Name) -> usize {
    tables.iter().filter(|table| table.blocks.contains(&name)).count()
}
