//! The bookkeeping of a paged KV cache: the owners and the content of every block.
//!
//! This crate has no memory, only ids and hashes. A *block* is room for the keys and values of
//! `block_size` tokens. The crate knows only its id; the device keeps the bytes. Every rule below
//! can therefore be tested hundreds of thousands of times without a device.
//!
//! # The life of a block
//!
//! ```text
//!             reserve                  commit fills it
//!   FREE ─────────────────▶ HELD ─────────────────────────▶ HELD and cached
//!    ▲  ▲                  1 table,                          1 table or more,
//!    │  │                  writable                          read-only
//!    │  │  rollback,        │                                 │            ▲
//!    │  └─ release ─────────┘                 the last table  │            │
//!    │                                        lets go         ▼            │ match_prefix
//!    └──────────────────────────────────────────────────── IDLE ───────────┘
//!                       evicted, oldest first              cached, no table
//! ```
//!
//! Tables of a draft model's KV ([`KvKind`]) take blocks of the same pool, and share them in the same
//! way with tables of their own kind. Their idle blocks are evicted before those of the target.
//!
//! Every block is in exactly one of the three states, and *free + idle* blocks can be allocated
//! ([`BlockManager::n_free`]). **A block is written only while exactly one table holds it and it is
//! not cached**; [`BlockManager::reserve`] ensures this, with a copy if necessary.
//!
//! # A step of the engine
//!
//! ```
//! use galley_blocks::{BlockManager, KvKind};
//!
//! let mut blocks = BlockManager::new(64, 4, true);
//! let prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9];
//!
//! let mut table = blocks.match_prefix(KvKind::target(0), &prompt); // nothing is cached yet
//! let todo = &prompt[table.n_tokens()..];
//! let copies = blocks.reserve(&mut table, todo.len())?;
//! assert!(copies.is_empty()); // else the device performs them now
//! // ... the device writes KV into table.ids() ...
//! blocks.commit(&mut table, todo);
//!
//! blocks.reserve(&mut table, 5)?; // four draft tokens and the token after them
//! blocks.commit(&mut table, &[10, 11]); // two were accepted
//! blocks.rollback(&mut table);
//! assert_eq!((table.n_tokens(), table.ids().len()), (11, 3));
//!
//! blocks.release(table);
//! let table = blocks.match_prefix(KvKind::target(0), &prompt); // the same prompt again
//! assert_eq!(table.n_tokens(), 8);
//! blocks.release(table);
//! # Ok::<(), galley_blocks::OutOfBlocks>(())
//! ```
//!
//! # Reading order
//!
//! `table.rs` (the blocks of a sequence), `kind.rs` (the model and the salt of their KV), `manager.rs`
//! (the operations), `prefix.rs` (the cache), `pool.rs` and `free.rs` (the states), `check.rs` (every
//! invariant as code). `tests/model.rs` compares the crate with a naive model.

#![forbid(unsafe_code)]

mod check;
mod free;
mod kind;
mod manager;
mod pool;
mod prefix;
mod table;

pub use kind::KvKind;
pub use manager::{BlockCopy, BlockManager, OutOfBlocks};
pub use pool::BlockId;
pub use table::BlockTable;
