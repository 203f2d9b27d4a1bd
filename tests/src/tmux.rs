//! Programs in a real terminal: tmux runs them, types for a person, and says what is on the screen.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How long something may take to be on a screen.
const SOON: Duration = Duration::from_secs(30);

/// A tmux server of its own; ends with this.
pub struct Tmux {
    socket: String,
}

/// One terminal of it.
pub struct Pane<'a> {
    tmux: &'a Tmux,
    name: String,
}

/// Whether there is tmux; where it can be, it is installed.
///
/// # Errors
/// Why there is none.
pub fn available() -> Result<(), String> {
    let there = || Command::new("tmux").arg("-V").output().is_ok_and(|out| out.status.success());
    if there() {
        return Ok(());
    }
    let installed = Command::new("apt-get").args(["install", "-y", "-qq", "tmux"]).output();
    match installed {
        Ok(out) if out.status.success() && there() => Ok(()),
        Ok(out) => Err(format!("tmux is missing, and apt-get: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("tmux is missing, and apt-get: {e}")),
    }
}

impl Tmux {
    /// Over a socket in this folder.
    pub fn new(dir: &Path) -> Self {
        Self { socket: dir.join("tmux.sock").display().to_string() }
    }

    fn command(&self, args: &[&str]) -> String {
        let out = Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-S", &self.socket])
            .args(args)
            .env("LANG", "C.UTF-8")
            .env_remove("TMUX")
            .output();
        match out {
            Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).into_owned(),
            Ok(out) => panic!("tmux {args:?}: {}", String::from_utf8_lossy(&out.stderr)),
            Err(e) => panic!("tmux: {e}"),
        }
    }

    /// Starts a shell line in a terminal of this size.
    pub fn start(&self, name: &str, line: &str, columns: u16, rows: u16) -> Pane<'_> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.command(&["new-session", "-d", "-s", name, "-x", &columns, "-y", &rows, line]);
        Pane { tmux: self, name: name.to_owned() }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // Each test has a server of its own, so that this ends nobody else's.
        _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
    }
}

impl Pane<'_> {
    /// Presses keys, by tmux's names for them.
    pub fn press(&self, keys: &[&str]) {
        self.tmux.command(&[&["send-keys", "-t", &self.name], keys].concat());
    }

    /// Types a text, and Enter.
    pub fn line(&self, text: &str) {
        self.tmux.command(&["send-keys", "-t", &self.name, "-l", text]);
        self.press(&["Enter"]);
    }

    /// Gives the window another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux.command(&["resize-window", "-t", &self.name, "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux.command(&["capture-pane", "-p", "-t", &self.name])
    }

    /// The same with colours, as escape sequences.
    pub fn coloured(&self) -> String {
        self.tmux.command(&["capture-pane", "-e", "-N", "-p", "-t", &self.name])
    }

    /// Waits until the screen is as it should be.
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{} never showed {what}:\n{screen}", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all of this is on the screen.
    pub fn shows(&self, texts: &[&str]) -> String {
        self.until(&format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contains(text)))
    }

    /// Waits until this is no longer on the screen.
    pub fn shows_no(&self, text: &str) -> String {
        self.until(&format!("the end of {text:?}"), |screen| !screen.contains(text))
    }
}
