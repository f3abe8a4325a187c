//! Setters of settings structs, which grow without breaking their callers.

/// Defines setters, each of which takes the value and returns it changed: the documentation, the name,
/// the argument, and the field with its new value.
///
/// A struct of settings is `#[non_exhaustive]`, so that a new field breaks no caller; other crates write
/// `Settings::default().threads(2)` in place of a literal. Of the workspace's own use.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    (
        impl $owner:ident;
        $($(#[$doc:meta])* $name:ident($value:ident: $kind:ty) => $($field:ident).+ = $new:expr;)*
    ) => {
        impl $owner {
            $(
                $(#[$doc])*
                #[must_use = "it returns the changed value"]
                pub fn $name(mut self, $value: $kind) -> Self {
                    self.$($field).+ = $new;
                    self
                }
            )*
        }
    };
}
