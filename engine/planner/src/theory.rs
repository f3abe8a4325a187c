//! The theory of speculative decoding: times of a target, its drafts and its verification by bytes and operations, for a
//! model and hardware that need not be here. `docs/planning.md` has the formulas with their units.

mod best;
mod forward;
mod hardware;
mod memory;
mod model_shape;
mod plan;
mod published;
mod round;

pub use best::{DraftOption, Strategy, critical_length, fastest_option};
pub use forward::{Bottleneck, Deployment, ForwardCosts, HeadsNotDivided, StepTime};
pub use hardware::{Hardware, UnknownGpu};
pub use memory::{MEMORY_SHARE, MemoryNeeds};
pub use model_shape::{Formats, ModelShape};
pub use plan::{Outlook, Planner, WorkloadPlan};
pub use published::{DRAFT_MODEL_ACCEPTANCE, streaming_llm_acceptance};
pub use round::{BreakEven, DraftMethod, Workload};
