//! Standard input and output without blocking the conversation: each has a thread of its own.

use std::{
    collections::VecDeque,
    io::{self, BufRead, IsTerminal, Read, Write},
    thread,
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::{mpsc, oneshot};

/// Longest line that is read, in bytes; what is said may be 16 KiB.
const LINE_LEN_MAX: u64 = 64 * 1024;
/// Lines that wait, each way.
const LINES_MAX: usize = 64;

/// A line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// To standard output: what is said and what was asked for.
    Out(String),
    /// To standard error: how things stand.
    Note(String),
}

/// Standard input, line by line.
pub(super) struct Input {
    lines: mpsc::Receiver<String>,
    pub(super) is_terminal: bool,
}

impl Input {
    /// Starts reading. The thread ends with the input, or with the process.
    pub(super) fn start() -> io::Result<Self> {
        let (send, lines) = mpsc::channel(LINES_MAX);
        thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut stdin = io::stdin().lock();
            while let Ok(Some(line)) = read_line(&mut stdin) {
                if send.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { lines, is_terminal: io::stdin().is_terminal() })
    }

    /// The next line, without its end; `None` at the end of the input.
    pub(super) async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Asks for a line on the terminal; with `hidden`, what is typed is not shown.
    pub(super) async fn prompt(&mut self, text: &str, hidden: bool) -> Option<String> {
        let _hidden = hidden.then(NoEcho::start).flatten();
        let mut stderr = io::stderr();
        let _ = write!(stderr, "{text}").and_then(|()| stderr.flush());
        self.next().await
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    input.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() != Some(&b'\n') {
        // The rest of a line that is too long to be said anyway; at the end of the input there is none.
        input.skip_until(b'\n')?;
    }
    let line = String::from_utf8_lossy(&bytes);
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// While it lives, the terminal shows nothing of what is typed but the line's end.
struct NoEcho(Termios);

impl NoEcho {
    fn start() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).ok()?;
        Some(Self(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Standard output and error, in one order.
pub(super) struct Output {
    /// Where lines go.
    pub(super) lines: mpsc::Sender<Line>,
    ended: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Starts writing, until the sender is dropped or standard output takes no more.
    pub(super) fn start() -> io::Result<Self> {
        let (lines, mut receive) = mpsc::channel(LINES_MAX);
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("stdout".into()).spawn(move || {
            let _ = end.send(write_lines(&mut receive));
        })?;
        Ok(Self { lines, ended })
    }

    /// Waits until standard output takes no more, and says why.
    pub(super) async fn why(&mut self) -> io::Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            _ => io::ErrorKind::BrokenPipe.into(),
        }
    }

    /// Writes the last lines.
    pub(super) async fn finish(self, lines: VecDeque<Line>) -> io::Result<()> {
        for line in lines {
            if self.lines.send(line).await.is_err() {
                break;
            }
        }
        drop(self.lines);
        self.ended.await.unwrap_or(Ok(()))
    }
}

fn write_lines(lines: &mut mpsc::Receiver<Line>) -> io::Result<()> {
    let (mut out, mut notes) = (io::BufWriter::new(io::stdout()), io::stderr());
    while let Some(line) = lines.blocking_recv() {
        match line {
            Line::Out(text) => writeln!(out, "{text}")?,
            Line::Note(text) => {
                out.flush()?;
                // Nobody can be told that there is nobody to tell.
                let _ = writeln!(notes, "{text}");
            }
        }
        if lines.is_empty() {
            out.flush()?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end_and_too_long_ones_are_cut() {
        let long = "x".repeat(100_000);
        let text = format!("one\r\n\n{long}\nlast");
        let mut input = io::Cursor::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines[..2], ["one", ""]);
        assert_eq!(lines[2].len() as u64, LINE_LEN_MAX);
        assert_eq!(lines[3..], ["last"]);
        assert_eq!(read_line(&mut io::Cursor::new(b"a\xffb\n")).unwrap().unwrap(), "a\u{fffd}b");
    }
}
