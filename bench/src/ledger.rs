//! Exact accounts: each message carries who sent it, its number and when it was meant to be sent.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Times beyond a minute are all the same.
const LONGEST_US: u64 = 60_000_000;

struct Books {
    /// By receiver and sender: the last number seen.
    seen: HashMap<(usize, usize), u64>,
    sent: HashMap<usize, u64>,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    counting: bool,
    counted_acks: u64,
    counted_deliveries: u64,
    delivery_us: Histogram<u64>,
    ack_us: Histogram<u64>,
}

/// The books of a run. Clones share them.
#[derive(Clone)]
pub(crate) struct Ledger {
    books: Arc<Mutex<Books>>,
    began: Instant,
}

/// Reads what [`Ledger::text`] wrote.
fn parse(text: &str) -> Option<(usize, u64, u64)> {
    let mut parts = text.split(' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Ledger {
    /// Empty books.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3);
        let books = Books {
            seen: HashMap::new(),
            sent: HashMap::new(),
            delivered: 0,
            duplicated: 0,
            reordered: 0,
            counting: false,
            counted_acks: 0,
            counted_deliveries: 0,
            delivery_us: histogram()?,
            ack_us: histogram()?,
        };
        Ok(Self { books: Arc::new(Mutex::new(books)), began: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message of this sender, of about this many bytes.
    pub(crate) fn text(&self, sender: usize, intended: Instant, bytes: usize) -> String {
        let mut books = self.lock();
        let number = books.sent.entry(sender).or_default();
        *number += 1;
        let at = intended.saturating_duration_since(self.began).as_micros();
        let mut text = format!("{sender} {number} {at} ");
        while text.len() < bytes {
            text.push('m');
        }
        text
    }

    /// A message was acknowledged.
    pub(crate) fn acked(&self, intended: Instant) {
        let mut books = self.lock();
        if books.counting {
            books.counted_acks += 1;
            books.ack_us.saturating_record(intended.elapsed().as_micros() as u64);
        }
    }

    /// A receiver saw a message.
    pub(crate) fn saw(&self, receiver: usize, text: &str) {
        let Some((sender, number, at)) = parse(text) else { return };
        let late = self.began.elapsed().saturating_sub(Duration::from_micros(at));
        let mut books = self.lock();
        books.delivered += 1;
        if books.counting {
            books.counted_deliveries += 1;
            books.delivery_us.saturating_record(late.as_micros() as u64);
        }
        let last = books.seen.entry((receiver, sender)).or_default();
        match number {
            _ if number == *last + 1 => *last = number,
            _ if number <= *last => books.duplicated += 1,
            _ => {
                *last = number;
                books.reordered += 1;
            }
        }
    }

    /// From now on it counts, or no more.
    pub(crate) fn count(&self, counting: bool) {
        self.lock().counting = counting;
    }

    /// Messages that were sent and that these many receivers each have yet to see.
    pub(crate) fn missing(&self, receivers: u64) -> u64 {
        let books = self.lock();
        (books.sent.values().sum::<u64>() * receivers).saturating_sub(books.delivered)
    }

    /// The result of a run.
    pub(crate) fn result(&self, workload: &str, receivers: u64, seconds: f64, cpu_ms: f64, rss_kib: u64) -> Outcome {
        let lost = self.missing(receivers);
        let books = self.lock();
        let per = |count: u64| if count == 0 { 0.0 } else { cpu_ms / count as f64 };
        let ms = |h: &Histogram<u64>, q: f64| h.value_at_quantile(q) as f64 / 1000.0;
        Outcome {
            workload: workload.to_owned(),
            messages: books.counted_acks,
            deliveries: books.counted_deliveries,
            per_s: books.counted_acks as f64 / seconds,
            cpu_ms_per_message: per(books.counted_acks),
            cpu_ms_per_delivery: per(books.counted_deliveries),
            ack_p50_ms: ms(&books.ack_us, 0.5),
            ack_p99_ms: ms(&books.ack_us, 0.99),
            p50_ms: ms(&books.delivery_us, 0.5),
            p99_ms: ms(&books.delivery_us, 0.99),
            rss_mib: rss_kib / 1024,
            lost,
            duplicated: books.duplicated,
            reordered: books.reordered,
        }
    }
}

/// What a run says.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    workload: String,
    messages: u64,
    deliveries: u64,
    per_s: f64,
    cpu_ms_per_message: f64,
    cpu_ms_per_delivery: f64,
    ack_p50_ms: f64,
    ack_p99_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    rss_mib: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
}

impl Outcome {
    /// Whether the accounts are in order; else the run is a failure, whatever its speed.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0
    }

    /// For people.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} messages, {:.0}/s, {} deliveries",
            self.workload, self.messages, self.per_s, self.deliveries
        )?;
        writeln!(
            out,
            "  node       {:.4} ms of CPU a message, {:.4} a delivery",
            self.cpu_ms_per_message, self.cpu_ms_per_delivery
        )?;
        writeln!(out, "  memory     {} MiB", self.rss_mib)?;
        writeln!(out, "  ack        p50 {:.2} ms, p99 {:.2} ms", self.ack_p50_ms, self.ack_p99_ms)?;
        writeln!(out, "  delivery   p50 {:.2} ms, p99 {:.2} ms", self.p50_ms, self.p99_ms)?;
        writeln!(out, "  lost {}, duplicated {}, reordered {}", self.lost, self.duplicated, self.reordered)
    }
}
