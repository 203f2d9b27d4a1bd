//! The terminal: taken for the whole screen, and given back whatever happens. The one file that knows how.

use std::{
    io, panic,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor,
        event::{self, DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange, Event},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::sync::mpsc;

use super::message::Input;

/// Keys that wait.
const KEYS_MAX: usize = 256;

/// The terminal is to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// While it lives, the terminal is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it is told.
    pub(super) fn take() -> io::Result<Self> {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            told(info);
        }));
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::Release);
        // From here on, dropping it gives the terminal back.
        let screen = Self { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))? };
        execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, EnableFocusChange)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(draw).map(|_| ())
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (u16, u16) {
        self.terminal.size().map_or((80, 24), |size| (size.width, size.height))
    }

    /// Makes itself heard.
    pub(super) fn bell(&mut self) {
        use io::Write;
        let mut out = io::stdout();
        // Who does not hear it sees it.
        let _ = out.write_all(b"\x07").and_then(|()| out.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Once: another time, the cursor would go back to where it was before.
    if !TAKEN.swap(false, Ordering::AcqRel) {
        return;
    }
    // Nobody can be told that there is nobody to tell.
    let _ = execute!(io::stdout(), DisableFocusChange, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// What the person does, from a thread of its own that ends with the terminal, or with the process.
pub(super) fn inputs() -> io::Result<mpsc::Receiver<Input>> {
    let (send, receive) = mpsc::channel(KEYS_MAX);
    thread::Builder::new().name("keys".into()).spawn(move || {
        while let Ok(event) = event::read() {
            let input = match event {
                Event::Key(key) => Input::Key(key),
                Event::Paste(text) => Input::Paste(text),
                Event::Resize(width, height) => Input::Resize(width, height),
                Event::FocusGained => Input::Focus(true),
                Event::FocusLost => Input::Focus(false),
                Event::Mouse(_) => continue,
            };
            if send.blocking_send(input).is_err() {
                return;
            }
        }
    })?;
    Ok(receive)
}
