//! Which charts a set of results asks for.

use super::{
    chart::{Axis, Bar, BarChart, Chart, Group, LineChart, Series},
    number,
};
use crate::{
    figures::Figures,
    record::{Comparison, Record},
    samples::{Round, Sample, memory_slope_per_hour},
    workload::{Kind, Workload},
};

/// Points of a line over time, at most.
const POINTS_MAX: usize = 240;
/// Runs shorter than this say nothing of an hour.
pub(crate) const SLOPE_SECONDS_MIN: f64 = 300.0;

/// What a figure "for each message" is for each of.
pub(crate) fn unit(kind: Kind) -> &'static str {
    match kind {
        Kind::Group => "delivery",
        Kind::Signin | Kind::Storm => "session",
        _ => "message",
    }
}

/// A name for a file.
pub(crate) fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// Where a percentile stands: each nine as far from the last; all of them at the end.
fn place_of(quantile: f64) -> f64 {
    if quantile >= 1.0 { 4.7 } else { -(1.0 - quantile).log10() }
}

fn percentile_series(name: &str, figures: &Figures, color: usize) -> Option<Series> {
    let points: Vec<_> =
        figures.percentiles.iter().filter(|(_, ms)| *ms > 0.0).map(|(q, ms)| (place_of(*q), ms.log10())).collect();
    (points.len() > 1).then(|| Series { name: name.to_owned(), points, color, dashed: false, dots: true })
}

/// Latency at each percentile; both axes by powers of ten.
fn latency(name: &str, title: String, series: Vec<Series>) -> Option<LineChart> {
    if series.is_empty() {
        return None;
    }
    let values = || series.iter().flat_map(|s| s.points.iter().map(|(_, y)| *y));
    let (from, to) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let fine = to - from < 1.6;
    let steps: &[f64] = if fine { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let decades = (from.floor() as i32 - 1)..=(to.ceil() as i32 + 1);
    let all: Vec<f64> = decades.flat_map(|d| steps.iter().map(move |s| (s * 10f64.powi(d)).log10())).collect();
    let low = all.iter().copied().filter(|v| *v <= from + 1e-9).fold(f64::NEG_INFINITY, f64::max);
    let high = all.iter().copied().filter(|v| *v >= to - 1e-9).fold(f64::INFINITY, f64::min);
    let ticks = all.iter().filter(|v| (low - 1e-9..=high + 1e-9).contains(*v));
    let ticks = ticks.map(|v| (*v, number::milliseconds(10f64.powf(*v)))).collect();
    let y = Axis { from: low, to: high.max(low + 0.3), ticks };
    let labels = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
    let label = |q: f64| if q < 1.0 { format!("{} %", (q * 1e6).round() / 1e4) } else { "all".to_owned() };
    let x = Axis { from: 0.2, to: 4.8, ticks: labels.map(|q| (place_of(q), label(q))).to_vec() };
    Some(LineChart { name: name.to_owned(), title, x, x_title: "of deliveries came within".into(), y, series })
}

/// The charts that stand above all: latencies of the runs, and the comparisons.
pub(crate) fn overview(
    records: &[Record],
    names: &[String],
    comparisons: &[(&Record, Comparison)],
) -> anyhow::Result<Vec<Chart>> {
    let mut charts = comparison_bars(comparisons)?;
    for (index, (record, comparison)) in comparisons.iter().enumerate() {
        let peer = &comparison.peer;
        let both = [("magpie", &comparison.ours, 0), (peer.name.as_str(), &peer.figures, 1)];
        let series = both.into_iter().filter_map(|(name, figures, color)| percentile_series(name, figures, color));
        let name = format!("compare-latency-{}-{}-{}", index + 1, slug(&record.name), slug(&peer.name));
        if let Some(chart) = latency(&name, format!("Latency of deliveries: {}", record.name), series.collect()) {
            charts.push(chart.draw()?);
        }
    }
    let mut series = Vec::new();
    for (name, figures) in names.iter().zip(records).filter_map(|(name, r)| Some((name, r.figures.as_ref()?))) {
        let color = series.len();
        series.extend(percentile_series(name, figures, color));
    }
    // More lines than colours cannot be told apart: several charts then.
    for (index, few) in chunks(series, 6).into_iter().enumerate() {
        let name = if index == 0 { "latency".to_owned() } else { format!("latency-{}", index + 1) };
        if let Some(chart) = latency(&name, "Latency of deliveries by run".into(), few) {
            charts.push(chart.draw()?);
        }
    }
    Ok(charts)
}

fn chunks(mut series: Vec<Series>, size: usize) -> Vec<Vec<Series>> {
    let mut all = Vec::new();
    while !series.is_empty() {
        let rest = series.split_off(size.min(series.len()));
        all.push(std::mem::replace(&mut series, rest));
    }
    all
}

type Value = fn(&Figures) -> Option<f64>;
type Shown = fn(f64) -> String;
type Seen = fn(&Sample) -> f64;

fn comparison_bars(comparisons: &[(&Record, Comparison)]) -> anyhow::Result<Vec<Chart>> {
    let metrics: [(&str, &str, &str, Value, Shown); 4] = [
        (
            "compare-cpu",
            "Server CPU for each message",
            "less is better",
            |f| Some(f.cpu_ms_per_message),
            |v| format!("{} ms", number::plain(v)),
        ),
        (
            "compare-rate",
            "Done in a second",
            "more is better",
            |f| Some(f.per_s),
            |v| format!("{}/s", number::plain(v)),
        ),
        (
            "compare-p99",
            "99 of 100 deliveries or sign-ins within",
            "less is better",
            |f| Some(f.p99_ms),
            number::milliseconds,
        ),
        (
            "compare-memory",
            "Memory for each idle session",
            "less is better",
            |f| f.rss_kb_per_session,
            |v| number::bytes(v * 1000.0),
        ),
    ];
    let mut charts = Vec::new();
    for (name, title, note, value, shown) in metrics {
        let group = |(record, comparison): &(&Record, Comparison)| {
            let (ours, theirs) = (value(&comparison.ours)?, value(&comparison.peer.figures)?);
            let bar = |name: &str, value: f64, color| Bar { name: name.to_owned(), value, text: shown(value), color };
            let each = match (unit(record.workload.kind), name) {
                ("message", _) | (_, "compare-memory" | "compare-p99") => String::new(),
                (other, _) => format!(" (per {other})"),
            };
            let peer = if comparison.peer.name == "floor" { ("floor", 1) } else { ("peer", 2) };
            (ours > 0.0 || theirs > 0.0).then(|| Group {
                label: format!("{} vs {}{each}", record.name, comparison.peer.name),
                bars: vec![bar("magpie", ours, 0), bar(peer.0, theirs, peer.1)],
            })
        };
        let groups: Vec<_> = comparisons.iter().filter_map(group).collect();
        if !groups.is_empty() {
            let chart = BarChart { name: name.to_owned(), title: title.to_owned(), note: note.to_owned(), groups };
            charts.push(chart.draw()?);
        }
    }
    Ok(charts)
}

/// An axis of seconds, labelled at whole seconds, minutes or hours.
fn time(end: f64) -> Axis {
    let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0];
    let step = steps.into_iter().find(|step| end / step <= 7.0).unwrap_or_else(|| (end / 7.0 / 3600.0).ceil() * 3600.0);
    let label = |at: f64| match step {
        s if s >= 3600.0 => format!("{} h", number::plain(at / 3600.0)),
        s if s >= 60.0 => format!("{} min", number::plain(at / 60.0)),
        _ => format!("{} s", number::plain(at)),
    };
    let ticks = (0..=(end / step) as usize).map(|n| (n as f64 * step, label(n as f64 * step))).collect();
    Axis { from: 0.0, to: end.max(1e-3), ticks }
}

/// A chart over so many seconds.
fn lines(name: String, title: &str, end: f64, lines: Vec<Series>, label: fn(f64) -> String) -> anyhow::Result<Chart> {
    let most = lines.iter().flat_map(|s| s.points.iter().map(|(_, y)| *y)).fold(0.0, f64::max);
    let (x, y) = (time(end), Axis::up_to(most, label));
    LineChart { name, title: title.to_owned(), x, x_title: String::new(), y, series: lines }.draw()
}

fn line(name: &str, color: usize, samples: &[Sample], value: fn(&Sample) -> f64) -> Series {
    let points = samples.iter().map(|sample| (sample.at_s, value(sample))).collect();
    Series { name: name.to_owned(), points, color, dashed: false, dots: false }
}

/// What a run or a comparison looked like over time; nothing when there are too few samples for a line.
pub(crate) fn over_time(name: &str, record: &Record) -> anyhow::Result<Vec<Chart>> {
    if let Some(comparison) = record.comparison()? {
        return both_over_time(name, record, &comparison.peer.name);
    }
    if record.samples.len() < 3 {
        return Ok(Vec::new());
    }
    let samples = thinned(&record.samples);
    let end = record.samples.last().map_or(1.0, |sample| sample.at_s);
    let lines = |what: &str, title: &str, of: Vec<Series>, label: fn(f64) -> String| {
        lines(format!("{name}-{what}"), title, end, of, label)
    };
    let line = |name: &str, color: usize, value: fn(&Sample) -> f64| line(name, color, &samples, value);
    let mut charts = Vec::new();
    if !matches!(record.workload.kind, Kind::Idle) {
        let sum = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>();
        let (acks, deliveries) = (sum(|s| s.acks_per_s), sum(|s| s.deliveries_per_s));
        let both = if (acks - deliveries).abs() <= 0.02 * deliveries {
            // Two lines that lie on each other would look like one.
            vec![line("acknowledged and delivered", 0, |s| s.deliveries_per_s)]
        } else {
            vec![line("acknowledged", 2, |s| s.acks_per_s), line("delivered", 0, |s| s.deliveries_per_s)]
        };
        charts.push(lines("throughput", "Messages a second", both, number::short)?);
    }
    charts.push(lines("cpu", "Cores that the server used", vec![line("server", 0, |s| s.cores)], number::plain)?);
    let mut memory = vec![line("resident", 0, |s| s.rss_mib * 1.048_576)];
    memory.extend(trend(&record.samples, end));
    charts.push(lines("memory", "Memory of the server", memory, |v| number::bytes(v * 1e6))?);
    if samples.iter().any(|sample| sample.disk_per_s > 0.0) {
        let disk = vec![line("written", 0, |s| s.disk_per_s)];
        charts.push(lines("disk", "Written to disk, a second", disk, number::bytes)?);
    }
    Ok(charts)
}

/// The same of both sides of a comparison.
fn both_over_time(name: &str, record: &Record, peer: &str) -> anyhow::Result<Vec<Chart>> {
    let (ours, theirs) = (in_a_row(&record.rounds, |r| &r.ours), in_a_row(&record.rounds, |r| &r.peer));
    if ours.len().min(theirs.len()) < 3 {
        return Ok(Vec::new());
    }
    let end = [&ours, &theirs].iter().flat_map(|side| side.last()).map(|last| last.at_s).fold(0.0, f64::max);
    let (ours, theirs) = (thinned(&ours), thinned(&theirs));
    let metrics: [(&str, &str, Seen, Shown); 4] = [
        ("throughput", "Messages delivered a second", |s| s.deliveries_per_s, number::short),
        ("cpu", "Cores that each server used", |s| s.cores, number::plain),
        ("memory", "Memory of each server", |s| s.rss_mib * 1.048_576, |v| number::bytes(v * 1e6)),
        ("disk", "Written to disk, a second", |s| s.disk_per_s, number::bytes),
    ];
    let mut charts = Vec::new();
    for (what, title, value, label) in metrics {
        // Nobody talks in `idle`, and many peers write nothing.
        if ours.iter().chain(&theirs).any(|sample| value(sample) > 0.0) {
            let both = vec![line("magpie", 0, &ours, value), line(peer, 1, &theirs, value)];
            charts.push(lines(format!("{name}-{what}"), &format!("{title}, rounds in a row"), end, both, label)?);
        }
    }
    Ok(charts)
}

/// One side's samples, each round where the one before ended, so that both sides have one axis though they took turns.
fn in_a_row(rounds: &[Round], side: fn(&Round) -> &Vec<Sample>) -> Vec<Sample> {
    let (mut all, mut begin) = (Vec::new(), 0.0);
    for round in rounds {
        all.extend(side(round).iter().map(|sample| Sample { at_s: begin + sample.at_s, ..sample.clone() }));
        let ends = [round.ours.last(), round.peer.last()];
        begin += ends.into_iter().flatten().map(|last| last.at_s).fold(0.0, f64::max);
    }
    all
}

/// Memory's line over the second half, where an hour can be told from it.
fn trend(samples: &[Sample], end: f64) -> Option<Series> {
    let slope = memory_slope_per_hour(samples).filter(|_| end >= SLOPE_SECONDS_MIN)?;
    let late = &samples[samples.len() / 2..];
    let mean = |of: fn(&Sample) -> f64| late.iter().map(of).sum::<f64>() / late.len() as f64;
    let (x, y) = (mean(|s| s.at_s), mean(|s| s.rss_mib) * 1.048_576);
    let at = |time: f64| (time, y * (1.0 + slope * (time - x) / 3600.0));
    let sign = if slope >= 0.0 { "+" } else { "" };
    Some(Series {
        name: format!("{sign}{} an hour", number::percent(slope)),
        points: vec![at(late.first()?.at_s), at(end)],
        color: 1,
        dashed: true,
        dots: false,
    })
}

/// Means of neighbours, so that a line has no more points than a reader can see.
fn thinned(samples: &[Sample]) -> Vec<Sample> {
    let of_each = samples.len().div_ceil(POINTS_MAX).max(1);
    let mean = |some: &[Sample]| {
        let mean = |of: fn(&Sample) -> f64| some.iter().map(of).sum::<f64>() / some.len() as f64;
        Sample {
            at_s: mean(|s| s.at_s),
            acks_per_s: mean(|s| s.acks_per_s),
            deliveries_per_s: mean(|s| s.deliveries_per_s),
            cores: mean(|s| s.cores),
            rss_mib: mean(|s| s.rss_mib),
            disk_per_s: mean(|s| s.disk_per_s),
        }
    };
    samples.chunks(of_each).map(mean).collect()
}

/// The workload in words.
pub(crate) fn describe(work: &Workload) -> String {
    let people = format!("{} people", number::grouped(work.users as f64));
    let groups = format!("{} of {}", work.groups, work.members);
    let pace = if work.is_open() {
        format!("{} messages a second", number::plain(work.rate))
    } else {
        format!("{} outstanding each", work.outstanding)
    };
    let mut sizes: Vec<_> = work.payload.iter().map(|payload| payload.bytes).collect();
    sizes.sort_unstable();
    let sizes = match sizes.as_slice() {
        [least, .., most] => format!("{} to {}", number::bytes(*least as f64), number::bytes(*most as f64)),
        few => few.iter().map(|bytes| number::bytes(*bytes as f64)).collect(),
    };
    match work.kind {
        Kind::Direct | Kind::Capacity | Kind::Failover => format!("{people} in pairs, {pace}, {sizes}"),
        Kind::Group => format!("groups: {groups}, {} speak in each, {pace}, {sizes}", work.senders),
        Kind::Mixed | Kind::Soak => {
            format!(
                "{people} in pairs, groups: {groups}, {pace}, {sizes}, {} sessions come and go a second",
                work.churn
            )
        }
        Kind::Idle => format!("{people} signed in, at rest"),
        Kind::Signin | Kind::Storm => format!("{people}, {} conversations each", work.conversations),
        Kind::Sync => format!("{} devices, {} messages missed each", work.users, number::grouped(work.missed as f64)),
        Kind::Replay => format!("logs of {}", work.folder),
    }
}
