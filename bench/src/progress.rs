//! What a person sees while a run goes on; nothing when standard error is no terminal.

use std::{borrow::Cow, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// One line that changes.
#[derive(Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A line on a terminal.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What goes on now.
    pub(crate) fn say(&self, what: impl Into<Cow<'static, str>>) {
        self.0.set_message(what);
    }

    /// The line goes.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
