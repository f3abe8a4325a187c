//! The contract between a model and a device, by subject: [`DeviceMemory`], [`DecoderOps`],
//! [`Sampling`] and [`AsyncSampling`]. A [`Backend`] is all of them.

mod decoder;
mod memory;
mod sampling;

pub use decoder::{AttentionParams, DecoderOps, GraphKey, QkNorm, Rope, RopeParams, WeightsId};
pub use memory::{DeviceMemory, KvShape};
pub use sampling::{AsyncSampling, Sampling};

/// A device for models. The engine thread calls its operations, one at a time.
pub trait Backend: DecoderOps + AsyncSampling {
    /// Description of the device for the user, such as instruction set and thread count.
    fn description(&self) -> String;
    /// Names the device's arithmetic: its instruction set or architecture, and its formats in effect.
    /// `has_blocks` is whether the model's file has weights in blocks. Devices with the same name
    /// compute the same bits of a model.
    fn arithmetic(&self, has_blocks: bool) -> String;
    /// Whether the device continues to work after a call has returned. If so, the host should
    /// enqueue more work before it waits.
    fn is_asynchronous(&self) -> bool {
        false
    }
}
