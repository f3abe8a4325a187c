//! Tests of the engine over a toy model. Its logits depend on every slot that it should read.

mod api;
mod async_steps;
mod auto;
mod cancels;
mod cost;
mod drafter;
mod drafts;
mod failing;
pub(crate) mod letters;
mod limits;
mod oracle;
mod plans;
mod queues;
mod resume;
mod schedules;
mod second_models;
mod suffixes;
mod toy;
