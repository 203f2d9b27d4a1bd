//! A server that speaks S3, from the npm registry: it keeps objects in a folder and knows its accounts by their key. It
//! reads signatures of version 4 and does not compare them.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What is installed, exactly.
const PACKAGE: &str = "s3rver@3.7.1";
/// Its one account: name and secret.
pub const KEY: &str = "S3RVER";
/// Its bucket.
pub const BUCKET: &str = "media";

/// See the module. Ends when it is dropped.
pub struct S3 {
    child: Child,
    program: PathBuf,
    dir: PathBuf,
    pub port: u16,
}

/// Installs the server into `at`, unless it is there. The error says why it cannot be.
///
/// # Errors
/// When there is no npm, or it does not reach its registry.
pub fn install(at: &Path) -> Result<PathBuf, String> {
    let program = at.join("node_modules/.bin/s3rver");
    if !program.exists() {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(at).arg(PACKAGE);
        let output = npm.output().map_err(|error| format!("npm: {error}"))?;
        if !output.status.success() || !program.exists() {
            return Err(format!("npm install {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(program)
}

impl S3 {
    /// Starts it with its objects in `dir`; port 0 is any.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, dir: &Path, port: u16) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args(["--address", "127.0.0.1", "--port", &port.to_string(), "--configure-bucket", BUCKET, "--directory"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let Some(stdout) = child.stdout.take() else { return Err("no stdout".into()) };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let listening = lines.find_map(|line| line.rsplit_once("listening on ")?.1.rsplit_once(':')?.1.parse().ok());
        let Some(port) = listening else {
            _ = child.kill();
            _ = child.wait();
            return Err("the S3 server ended at its start".into());
        };
        // It says a line for each request: somebody must read them.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, program: program.to_owned(), dir: dir.to_owned(), port })
    }

    /// Kills it; returns what starts it again where it was.
    pub fn kill(mut self) -> impl FnOnce() -> Result<Self, String> {
        _ = self.child.kill();
        _ = self.child.wait();
        let (program, dir, port) = (self.program.clone(), self.dir.clone(), self.port);
        move || Self::start(&program, &dir, port)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
