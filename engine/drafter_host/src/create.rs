//! Creates a drafter: passes its options and the host table, and checks the `gd_drafter` that it
//! returns.

use std::collections::{BTreeMap, HashMap};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;

use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_OK, gd_drafter};

use crate::drafter::Feedback;
use crate::ffi::read_prefix;
use crate::host::{Host, LentBatch, Phase};
use crate::status::refused;
use crate::tables::HostTable;
use crate::{Drafter, Library, LoadError, ModelFacts, Timings};

impl Drafter {
    /// Creates a drafter with the given options; the other options have their defaults.
    pub fn create(
        library: &Arc<Library>,
        options: &BTreeMap<String, String>,
        target: ModelFacts,
    ) -> Result<Drafter, LoadError> {
        let manifest = library.manifest();
        if let Some(unknown) =
            options.keys().find(|key| manifest.options.iter().all(|o| o.name != **key))
        {
            let known: Vec<&str> = manifest.options.iter().map(|o| o.name.as_str()).collect();
            return Err(LoadError::UnknownOption {
                drafter: manifest.name.clone(),
                option: unknown.clone(),
                known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            });
        }
        let text = |s: &str| abi::gd_str { ptr: s.as_ptr().cast(), len: s.len() };
        let options: Vec<abi::gd_option> = manifest
            .options
            .iter()
            .map(|o| abi::gd_option {
                name: text(&o.name),
                value: text(options.get(&o.name).unwrap_or(&o.default)),
            })
            .collect();
        let host = Arc::new(Host::new(manifest.name.clone(), target));
        let table = HostTable::new(&host);
        let mut plugin = std::ptr::null_mut();
        let create = library.create_fn();
        let status = host.within(Phase::Create, LentBatch::default(), |_| {
            // SAFETY: the table and its host live until the drafter is destroyed; the options and
            // their texts live until this call returns.
            unsafe { create(table.as_ptr(), options.as_ptr(), options.len(), &raw mut plugin) }
        });
        if status != GD_OK {
            return Err(refused(&host, "be created", status));
        }
        let incompatible = |reason: &str| LoadError::Incompatible {
            path: library.path().to_owned(),
            reason: reason.to_owned(),
        };
        let plugin = NonNull::new(plugin).ok_or_else(|| incompatible("its create gives NULL"))?;
        // SAFETY: create returned a struct that begins with its size; zeros are valid null pointers
        // and absent functions.
        let calls: gd_drafter = unsafe { read_prefix(plugin.as_ptr()) };
        let needed = offset_of!(gd_drafter, guess) + size_of_val(&calls.guess);
        let missing = match (calls.destroy, calls.activate, calls.guess) {
            _ if calls.struct_size < needed => Some("its gd_drafter does not reach guess"),
            (None, ..) => Some("its gd_drafter has no destroy"),
            (_, None, _) => Some("its gd_drafter has no activate"),
            (.., None) => Some("its gd_drafter has no guess"),
            _ => None,
        };
        if let Some(reason) = missing {
            if let Some(destroy) = calls.destroy {
                // SAFETY: create returned this drafter, and it is destroyed once.
                unsafe { destroy(plugin.as_ptr()) };
            }
            return Err(incompatible(reason));
        }
        host.state().mark_kept();
        // SAFETY: the feedback table of the header has this id.
        let feedback: Option<abi::gd_drafter_feedback> =
            unsafe { table_of(&host, plugin, &calls, abi::GD_EXT_FEEDBACK) };
        Ok(Drafter {
            host,
            _table: table,
            plugin,
            calls,
            feedback: feedback.and_then(|table| table.feedback).map(Feedback::new),
            is_active: false,
            views: Vec::new(),
            masks: Vec::new(),
            matchers: Vec::new(),
            recorded: HashMap::new(),
            timings: Timings::default(),
            n_failures: [0; 2],
            n_slow: 0,
            n_quick: 0,
            set_aside: None,
            _library: Arc::clone(library),
        })
    }
}

/// A copy of the drafter's table of an id; None if the drafter has none. Functions beyond its
/// `struct_size` are absent.
///
/// # Safety
///
/// `plugin` was created by this library, `calls` are its callbacks, and `id` is the NUL-terminated
/// id of tables of type `T`, which begin with their size and hold optional functions.
unsafe fn table_of<T>(
    host: &Host,
    plugin: NonNull<gd_drafter>,
    calls: &gd_drafter,
    id: &'static [u8],
) -> Option<T> {
    let get_extension = calls.get_extension?;
    let table = host.within(Phase::Extension, LentBatch::default(), |_| {
        // SAFETY: the caller promises the drafter, and a text that ends with a NUL.
        unsafe { get_extension(plugin.as_ptr(), id.as_ptr().cast()) }
    });
    // SAFETY: the drafter gives a table of this id or NULL, and the caller promises its type.
    (!table.is_null()).then(|| unsafe { read_prefix(table.cast::<T>()) })
}
