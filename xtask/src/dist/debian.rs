//! The Debian package: the tree below /usr.

use super::tree::{Tree, folder, make_empty};
use crate::shell::{command, exists, output, root, run};
use anyhow::{Result, ensure};
use std::fs;
use std::path::PathBuf;

/// Writes the package.
pub(crate) fn package(tree: &Tree) -> Result<PathBuf> {
    ensure!(
        exists(command("dpkg-deb", ["--version"])),
        "dpkg-deb is not installed: it is a part of Debian"
    );
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let place = folder().join("debian");
    make_empty(&place)?;
    fs::create_dir(place.join("DEBIAN"))?;
    let mut copy = command("cp", ["--archive"]);
    run({
        copy.arg(&tree.path).arg(place.join("usr"));
        copy
    })?;
    fs::copy(root().join("LICENSE"), place.join("usr/share/doc/galley/copyright"))?;
    // A package of another profile has the same files: as another version, it replaces an installed one.
    let version = format!("{}{}", tree.version, tree.profile.suffix().replace('-', "+"));
    let control = format!(
        "Package: galley\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The Galley authors <galley@localhost>\n\
         Section: science\nPriority: optional\nDepends: libc6 (>= {}), libgcc-s1\n\
         Description: LLM inference with lossless speculative decoding\n \
         The program galley, its drafters, and the library libgalley for programs in C and other languages.\n",
        glibc(tree)?
    );
    fs::write(place.join("DEBIAN/control"), control)?;
    // The loader's cache must learn of the new library.
    fs::write(place.join("DEBIAN/triggers"), "activate-noawait ldconfig\n")?;
    let package = folder().join(format!("galley_{version}_{architecture}.deb"));
    let mut build = command("dpkg-deb", ["--root-owner-group", "-Zxz", "--build"]);
    build.arg(&place).arg(&package);
    run(build)?;
    Ok(package)
}

/// The glibc version that the files of the tree need, read from their symbols.
fn glibc(tree: &Tree) -> Result<String> {
    let mut read = command("python3", ["ffi/python/elf.py"]);
    read.arg(tree.path.join("bin/galley")).arg(tree.path.join("lib/libgalley.so.0"));
    read.args(tree.drafters.iter().map(|name| tree.path.join("lib/galley/drafters").join(name)));
    Ok(output(read)?.trim().to_owned())
}
