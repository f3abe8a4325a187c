//! Huge pages of Linux, which the memory of weights and KV cache asks for.

use std::fmt;
use std::path::Path;

/// The kernel's file, below the root of the system.
const SETTING: &str = "sys/kernel/mm/transparent_hugepage/enabled";

/// Whether the kernel gives huge pages to memory that asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HugePages {
    /// The kernel's setting: `always`, `madvise` or `never`.
    pub(crate) setting: String,
}

impl HugePages {
    /// Reads the setting below the root `/`. None if the system has no such setting.
    pub(crate) fn of(root: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(root.join(SETTING)).ok()?;
        // The setting in force is in brackets: "always [madvise] never".
        let (_, rest) = text.split_once('[')?;
        let (setting, _) = rest.split_once(']')?;
        Some(Self { setting: setting.to_owned() })
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = &self.setting;
        match setting.as_str() {
            "never" => write!(
                f,
                "never: weights and KV cache are read 2 to 15 % slower; \"madvise\" in /{SETTING} allows huge pages"
            ),
            _ => write!(f, "{setting}: weights and KV cache ask for them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<HugePages> {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join(SETTING);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, text).expect("written");
        HugePages::of(root.path())
    }

    #[test]
    fn never_names_the_setting_and_its_effect() {
        let never = of("always madvise [never]\n").expect("a setting").to_string();
        for part in ["never", "2 to 15 % slower", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            assert!(never.contains(part), "{part}: {never}");
        }
    }

    #[test]
    fn huge_pages_are_there_if_memory_may_ask_for_them() {
        for (text, setting) in
            [("always [madvise] never\n", "madvise"), ("[always] madvise never\n", "always")]
        {
            let pages = of(text).expect("a setting");
            assert_eq!(pages.setting, setting);
            assert!(!pages.to_string().contains("slower"), "{pages}");
        }
    }

    #[test]
    fn a_system_without_the_setting_says_nothing() {
        assert_eq!(HugePages::of(tempfile::tempdir().expect("a folder").path()), None);
        assert_eq!(of("always madvise never\n"), None);
    }
}
