//! The bookkeeping of a paged KV cache: which block belongs to whom, and what is in it.
//!
//! There is no memory here, only ids and hashes. A *block* is room for the keys and values of
//! `block_size` tokens; its id is all this crate knows of it, and the device keeps the bytes. So
//! every rule below can be tested, by the hundred thousand, without a device.
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
//! Every block is in exactly one of the three states, and *free + idle* is what can be allocated
//! ([`BlockManager::n_free`]). **A block is written only while one table holds it and it is not
//! cached**; [`BlockManager::reserve`] sees to that, by a copy where it must.
//!
//! # A turn of the engine
//!
//! ```
//! use galley_blocks::BlockManager;
//!
//! let mut blocks = BlockManager::new(64, 4, true);
//! let prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9];
//!
//! let mut table = blocks.match_prefix(0, &prompt); // nothing is cached yet
//! let todo = &prompt[table.n_tokens()..];
//! let copies = blocks.reserve(&mut table, todo.len())?;
//! assert!(copies.is_empty()); // else the device performs them now
//! // ... the device writes KV into table.ids() ...
//! blocks.commit(&mut table, todo);
//!
//! blocks.reserve(&mut table, 5)?; // four guesses and the token after them
//! blocks.commit(&mut table, &[10, 11]); // two were kept
//! blocks.rollback(&mut table);
//! assert_eq!((table.n_tokens(), table.ids().len()), (11, 3));
//!
//! blocks.release(table);
//! assert_eq!(blocks.cached_prefix_tokens(0, &prompt), 8);
//! # Ok::<(), galley_blocks::OutOfBlocks>(())
//! ```
//!
//! # Reading order
//!
//! `table.rs` (what a sequence holds), `manager.rs` (the operations), `prefix.rs` (the cache),
//! `pool.rs` and `free.rs` (the states), `check.rs` (every invariant, as code). `tests/model.rs`
//! runs it all against a naive model.

#![forbid(unsafe_code)]

mod check;
mod free;
mod manager;
mod pool;
mod prefix;
mod table;

pub use manager::{BlockCopy, BlockManager, OutOfBlocks, Stats};
pub use pool::BlockId;
pub use table::BlockTable;
