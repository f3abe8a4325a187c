//! Quantised weights: their layout, packing, and products with activations in signed bytes.
//!
//! | file | subject |
//! |---|---|
//! | [`layout`] | strips of sixteen outputs, in groups of blocks |
//! | [`pack`] | from rows to strips, and back |
//! | [`quantise`] | quantising weights while they are loaded |
//! | [`rows`] | activations as signed bytes |
//! | [`product`] | a strip times some rows |

mod layout;
mod pack;
mod product;
mod quantise;
mod rows;

pub(super) use layout::{STRIP, strip_bytes};
pub(super) use pack::{pack_strip, read_lane};
pub(super) use product::{MOST_ROWS, StripProduct, multiply_strip, tile_rows};
pub(super) use quantise::quantise_weights;
pub(super) use rows::{RowBlock, quantise_row};
