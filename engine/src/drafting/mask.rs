//! Layer masks of drafters, as a forward takes them.

use galley_backend::LayerMask;
use galley_drafter_host::{Mask, MaskId};

/// The layers of a mask; all layers without one.
pub(super) fn layer_mask(id: Option<MaskId>, masks: &[Mask]) -> LayerMask<'_> {
    match id {
        None => LayerMask::All,
        Some(id) => {
            let Mask { attention, mlp, .. } = &masks[id.0 as usize];
            LayerMask::Only { attention, mlp }
        }
    }
}
