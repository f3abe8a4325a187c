//! The engine over a toy model whose answers depend on every slot it should read.

mod api;
mod cost;
mod late;
pub(crate) mod letters;
mod oracle;
mod schedules;
mod toy;
