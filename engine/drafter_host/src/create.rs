//! Creates a drafter: passes its options and the host table, and checks the `gd_drafter` that it
//! returns.

use std::collections::{BTreeMap, HashMap};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::Arc;

use galley_drafter_abi as abi;
use galley_drafter_abi::{GD_OK, gd_drafter};

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
        Ok(Drafter {
            host,
            _table: table,
            plugin,
            calls,
            is_active: false,
            views: Vec::new(),
            masks: Vec::new(),
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
