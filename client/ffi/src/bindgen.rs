//! Writes the sources of other languages. They are read out of the built library, which carries what its functions look
//! like, and this file is the only one that knows what writes them.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

/// Why there are no sources.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library is not where cargo puts it.
    #[error("{} is not there: cargo build -p magpie-client-ffi", .0.display())]
    NoLibrary(PathBuf),
    /// A path that is no text.
    #[error("{} is no text", .0.display())]
    Path(PathBuf),
    /// A file could not be written.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    /// The library was not understood.
    #[error("{0}")]
    Library(String),
}

/// The library that was built together with the running program.
///
/// # Errors
/// [`Error::NoLibrary`] when it is not beside the program.
pub fn library() -> Result<PathBuf, Error> {
    let name = format!("{}magpie_client_ffi{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let program = env::current_exe().map_err(|error| Error::File("the running program".into(), error))?;
    let folder = program.parent().unwrap_or(Path::new("."));
    // In `deps` cargo keeps what it built last; a copy beside a program may be of an earlier build.
    let places = [folder.join("deps").join(&name), folder.join(&name)];
    places.iter().find(|place| place.exists()).cloned().ok_or_else(|| Error::NoLibrary(folder.join(name)))
}

/// Writes what an app needs of this library into `python`, `kotlin` and `swift` under `dir`. The folder for Python gets
/// the library too, from where the module loads it.
///
/// # Errors
/// See [`Error`].
pub fn write(library: &Path, dir: &Path) -> Result<(), Error> {
    for (language, folder) in
        [(TargetLanguage::Python, "python"), (TargetLanguage::Kotlin, "kotlin"), (TargetLanguage::Swift, "swift")]
    {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).map_err(|error| Error::File(folder.clone(), error))?;
        let (source, out_dir) = (text(library)?.into(), text(&folder)?.into());
        // Unformatted: what formats is not on every machine, and nobody edits these.
        let options = GenerateOptions { languages: vec![language], source, out_dir, format: false, ..<_>::default() };
        generate(options).map_err(|error| Error::Library(format!("{error:#}")))?;
    }
    let copy = dir.join("python").join(library.file_name().unwrap_or_default());
    fs::copy(library, &copy).map(|_| ()).map_err(|error| Error::File(copy, error))
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Path(path.to_owned()))
}
