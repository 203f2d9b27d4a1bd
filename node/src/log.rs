//! What is written to standard error, and from which level on: that may change while the node runs.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU8, Ordering},
};

use tracing::level_filters::LevelFilter;

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

static LEVEL: AtomicU8 = AtomicU8::new(3);

fn now() -> LevelFilter {
    LEVELS.get(usize::from(LEVEL.load(Ordering::Relaxed))).copied().unwrap_or(LevelFilter::INFO)
}

fn parse(level: &str) -> Result<u8, String> {
    let parsed: Option<LevelFilter> = level.parse().ok();
    let place = parsed.and_then(|parsed| LEVELS.iter().position(|known| *known == parsed)).filter(|place| *place > 0);
    place
        .map(|place| place as u8)
        .ok_or_else(|| format!("log.level is {level:?}; it must be error, warn, info, debug or trace"))
}

/// The least severe level that is shown.
pub fn level() -> String {
    now().to_string()
}

/// Shows what is at least as severe as this from now on. An error says which levels there are.
pub fn set_level(level: &str) -> Result<(), String> {
    LEVEL.store(parse(level)?, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// Logs to standard error, from this level on.
pub fn to_stderr(level: &str) -> anyhow::Result<()> {
    set_level(level).map_err(|why| anyhow::anyhow!(why))?;
    // Where standard error goes may be full. Saying so there would panic, also on the thread that is to end the node.
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(io::stderr)
        // Colours are for people: a file would hold their codes.
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .log_internal_errors(false)
        .finish();
    // openraft and sled say much that concerns nobody else; what matters of consensus we say ourselves.
    tracing::subscriber::set_global_default(Quiet { inner: subscriber }).map_err(|e| anyhow::anyhow!("logging: {e}"))
}

/// Shows what others than us say only from warnings on.
struct Quiet<S> {
    inner: S,
}

impl<S: tracing::Subscriber> tracing::Subscriber for Quiet<S> {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        let (target, level, shown) = (metadata.target(), *metadata.level(), now());
        let quiet = target.starts_with("openraft") && shown < LevelFilter::DEBUG;
        let wanted = target.starts_with("magpie") || (level <= tracing::Level::WARN && !quiet);
        level <= shown && wanted
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.inner.new_span(span)
    }
    fn record(&self, span: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        self.inner.record(span, values);
    }
    fn record_follows_from(&self, span: &tracing::span::Id, follows: &tracing::span::Id) {
        self.inner.record_follows_from(span, follows);
    }
    fn event(&self, event: &tracing::Event<'_>) {
        self.inner.event(event);
    }
    fn enter(&self, span: &tracing::span::Id) {
        self.inner.enter(span);
    }
    fn exit(&self, span: &tracing::span::Id) {
        self.inner.exit(span);
    }
    fn clone_span(&self, id: &tracing::span::Id) -> tracing::span::Id {
        self.inner.clone_span(id)
    }
    fn try_close(&self, id: tracing::span::Id) -> bool {
        self.inner.try_close(id)
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(now())
    }
}
