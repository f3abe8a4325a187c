//! The table of launchers, as the header declares it.

/// The contract of the kernels.
///
/// # Panics
///
/// If the file is missing.
pub(crate) fn header() -> String {
    std::fs::read_to_string("include/galley_kernels.h").expect("the header")
}

/// Names of the launchers in the table of the header.
///
/// # Panics
///
/// If the header declares no table.
pub(crate) fn launchers(header: &str) -> Vec<&str> {
    let table = header.split("typedef struct gk_kernels {").nth(1);
    let table = table.and_then(|at| at.split('}').next()).expect("the header declares the table");
    let launchers = table.lines().map(str::trim).filter(|line| line.ends_with(", gk_stream);"));
    launchers.filter_map(|line| line.strip_prefix("int32_t (*")?.split(')').next()).collect()
}
