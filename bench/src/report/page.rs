//! One page that needs nothing but itself.

use std::fmt::Write;

use super::{
    chart::{self, Chart},
    charts::{describe, unit},
    number::{bytes, grouped, milliseconds, plain},
};
use crate::{
    figures::Figures,
    ledger::Accounts,
    record::{Comparison, Record},
};

const CSS: &str = "
:root{color-scheme:light dark;--page:#f4f6f9;--card:#fdfdfe;--ink:#1f2937;--muted:#64748b;--rule:#e2e8f0;--good:#0b7a5f;--bad:#b91c1c;--ours:#2563eb}
@media (prefers-color-scheme:dark){:root{--page:#0e131d;--card:#161d2b;--ink:#e5e7eb;--muted:#94a3b8;--rule:#333f52;--good:#4ade80;--bad:#f87171;--ours:#6ea8fe}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:40px 0 4px}h3{font-size:16px;margin:28px 0 2px}
p{margin:0 0 12px}.muted{color:var(--muted)}
.verdict{display:inline-block;margin:12px 0 0;padding:6px 12px;border-radius:8px;border:1px solid currentColor;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:16px;margin:14px 0}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.card svg{display:block;width:100%;height:auto}
.wide{overflow-x:auto;margin:14px 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:8px 10px;text-align:right;border-top:1px solid var(--rule);white-space:nowrap}
thead th{border-top:0;color:var(--muted);font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left}
td.also{white-space:normal;min-width:130px;font-size:13px;color:var(--muted)}
ul{margin:0 0 12px;padding-left:20px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:2px 24px;margin:14px 0;padding:14px 16px}
dl div{display:flex;justify-content:space-between;gap:12px;border-bottom:1px solid var(--rule);padding:4px 0}
dt{color:var(--muted)}dd{margin:0;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
details{margin:8px 0}summary{cursor:pointer;color:var(--muted)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:8px 0;padding:12px 16px}
";

const FOOT: &str = "<p class=\"muted\">Latencies are from the time at which a message was meant to be sent until its \
receiver had it. Server CPU is user and system time of the server's processes. The slope of memory is by least squares \
over the second half of a run; runs under five minutes show none.</p></main></body></html>\n";

/// A result with a heading of its own.
pub(crate) struct Section<'a> {
    pub(crate) record: &'a Record,
    pub(crate) charts: Vec<Chart>,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn card_of(charts: &[Chart], page: &mut String) {
    if charts.is_empty() {
        return;
    }
    page.push_str("<div class=\"charts\">");
    for chart in charts {
        _ = write!(page, "<div class=\"card\">{}</div>", chart.svg);
    }
    page.push_str("</div>\n");
}

fn table(head: &[&str], rows: &[Vec<String>], page: &mut String) {
    page.push_str("<div class=\"card wide\"><table><thead><tr>");
    head.iter().for_each(|cell| _ = write!(page, "<th>{cell}</th>"));
    page.push_str("</tr></thead><tbody>");
    for row in rows {
        page.push_str("<tr>");
        row.iter().for_each(|cell| page.push_str(cell));
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>\n");
}

fn cell(text: &str) -> String {
    format!("<td>{}</td>", escaped(text))
}

/// All figures of a run that apply: name and value with its unit.
pub(crate) fn all_figures(figures: &Figures, each: &str) -> Vec<(String, String)> {
    let count = |value: u64| grouped(value as f64);
    let mut rows = Vec::new();
    let mut add = |name: &str, value: Option<String>| rows.extend(value.map(|value| (name.to_owned(), value)));
    let some = |value: f64| (value > 0.0).then_some(value);
    add("a second", some(figures.per_s).map(plain));
    add(&format!("CPU a {each}"), some(figures.cpu_ms_per_message).map(|v| format!("{} ms", plain(v))));
    let came = if each == "session" { "wait" } else { "delivery" };
    add(&format!("{came} p50"), some(figures.p50_ms).map(milliseconds));
    add(&format!("{came} p99"), some(figures.p99_ms).map(milliseconds));
    add("acknowledged p50", figures.ack_p50_ms.map(milliseconds));
    add("acknowledged p99", figures.ack_p99_ms.map(milliseconds));
    add("messages", figures.messages.map(count));
    add("deliveries", figures.deliveries.map(count));
    let cores = |v: f64| format!("{} {}", plain(v), if plain(v) == "1" { "core" } else { "cores" });
    add("server", figures.cores.map(cores));
    add("generator", figures.generator_cores.map(cores));
    add("memory", figures.rss_mib.map(|v| bytes(v * 1_048_576.0)));
    add("memory a session", figures.rss_kb_per_session.map(|v| bytes(v * 1000.0)));
    add("memory slope an hour", figures.memory_slope_per_hour.map(|v| format!("{:+.1} %", v * 100.0)));
    add("disk a message", figures.disk_bytes_per_message.map(bytes));
    add("network a message", figures.network_bytes_per_message.map(bytes));
    add("took", figures.took_s.map(|v| milliseconds(v * 1000.0)));
    add("kills", figures.kills.map(|v| v.to_string()));
    add("unavailable p50", figures.unavailable_ms.map(|s| milliseconds(s.p50)));
    add("unavailable p90", figures.unavailable_ms.map(|s| milliseconds(s.p90)));
    add("unavailable longest", figures.unavailable_ms.map(|s| milliseconds(s.max)));
    let Accounts { lost, duplicated, reordered } = figures.accounts;
    add("lost", Some(count(lost)));
    add("duplicated", Some(count(duplicated)));
    add("reordered", Some(count(reordered)));
    rows
}

fn accounts(figures: &Figures) -> String {
    let Accounts { lost, duplicated, reordered } = figures.accounts;
    let class = if figures.accounts.are_clean() { "good" } else { "bad" };
    format!("<td class=\"{class}\">{lost} / {duplicated} / {reordered}</td>")
}

/// What a workload is about when it is not about messages.
fn also(figures: &Figures) -> String {
    let session = figures.rss_kb_per_session.map(|kb| format!("{} a session", bytes(kb * 1000.0)));
    let slope = figures.memory_slope_per_hour.map(|slope| format!("memory {:+.1} % an hour", slope * 100.0));
    let away = figures.unavailable_ms.map(|away| format!("unavailable {}", milliseconds(away.p50)));
    let took = figures.took_s.map(|seconds| format!("took {}", milliseconds(seconds * 1000.0)));
    [session, slope, away, took].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn runs_table(sections: &[Section], page: &mut String) {
    let runs = sections.iter().filter_map(|section| Some((section.record, section.record.figures.as_ref()?)));
    let or = |value: Option<f64>, shown: fn(f64) -> String| cell(&value.filter(|v| *v > 0.0).map_or("–".into(), shown));
    let row = |(record, figures): (&Record, &Figures)| {
        let cpu = |v| format!("{} ms / {}", plain(v), unit(record.workload.kind));
        let cpu = Some(figures.cpu_ms_per_message).filter(|v| *v > 0.0).map_or("–".into(), cpu);
        vec![
            cell(&record.name),
            or(Some(figures.per_s), plain),
            cell(&cpu),
            or(Some(figures.p50_ms), milliseconds),
            or(Some(figures.p99_ms), milliseconds),
            or(figures.rss_mib.map(|v| v * 1_048_576.0), bytes),
            or(figures.disk_bytes_per_message, bytes),
            accounts(figures),
            format!("<td class=\"also\">{}</td>", also(figures)),
        ]
    };
    let rows: Vec<_> = runs.map(row).collect();
    if rows.is_empty() {
        return;
    }
    page.push_str("<h2>Runs</h2>\n");
    let head = [
        "workload",
        "a second",
        "server CPU",
        "p50",
        "p99",
        "memory",
        "disk / message",
        "lost / dup. / reord.",
        "also",
    ];
    table(&head, &rows, page);
}

fn ratio(middle: Option<f64>, (low, high): (Option<f64>, Option<f64>)) -> String {
    let number = |value: Option<f64>| value.map_or("–".to_owned(), plain);
    match middle {
        Some(middle) => format!("{} ({} to {})", plain(middle), number(low), number(high)),
        None => "–".to_owned(),
    }
}

fn comparisons_table(comparisons: &[(&Record, Comparison)], page: &mut String) {
    if comparisons.is_empty() {
        return;
    }
    page.push_str("<h2>Comparisons</h2>\n<p class=\"muted\">Magpie divided by the peer, in alternating rounds: the middle of the rounds, and the smallest and the largest.</p>\n");
    let row = |(record, comparison): &(&Record, Comparison)| {
        let peer = &comparison.peer;
        let yes = |is| if is { "yes" } else { "no" };
        vec![
            cell(&format!("{} vs {}", record.name, peer.name)),
            cell(&comparison.rounds.to_string()),
            cell(&ratio(comparison.ratio.cpu, comparison.ratio.cpu_spread)),
            cell(&ratio(comparison.ratio.per_s, comparison.ratio.per_s_spread)),
            cell(&comparison.ratio.rss.map_or("–".to_owned(), plain)),
            accounts(&comparison.ours),
            accounts(&peer.figures),
            cell(&format!("{} / {}", yes(peer.durable), yes(peer.encrypted))),
        ]
    };
    let head = [
        "work",
        "rounds",
        "CPU ratio",
        "rate ratio",
        "memory ratio",
        "our accounts",
        "its accounts",
        "durable / encrypted",
    ];
    table(&head, &comparisons.iter().map(row).collect::<Vec<_>>(), page);
    let mut promises: Vec<_> = comparisons.iter().map(|(_, c)| (&c.peer.name, &c.peer.promise)).collect();
    promises.sort_unstable();
    promises.dedup();
    page.push_str(
        "<p class=\"muted\">What an acknowledgement and a delivery of each peer mean:</p><ul class=\"muted\">",
    );
    for (name, promise) in promises {
        _ = write!(page, "<li><b>{}</b>: {}</li>", escaped(name), escaped(promise));
    }
    page.push_str("</ul>\n");
}

fn figures_list(title: &str, figures: &Figures, each: &str, page: &mut String) {
    if !title.is_empty() {
        _ = write!(page, "<p class=\"muted\">{}</p>", escaped(title));
    }
    page.push_str("<dl class=\"card\">");
    for (name, value) in all_figures(figures, each) {
        _ = write!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>\n");
}

fn section(section: &Section, comparison: Option<&Comparison>, page: &mut String) -> anyhow::Result<()> {
    let record = section.record;
    let each = unit(record.workload.kind);
    let title = comparison.map_or_else(|| record.name.clone(), |c| format!("{} vs {}", record.name, c.peer.name));
    _ = writeln!(page, "<h3>{}</h3><p class=\"muted\">{}</p>", escaped(&title), escaped(&describe(&record.workload)));
    card_of(&section.charts, page);
    if let Some(figures) = &record.figures {
        figures_list("", figures, each, page);
    }
    if let Some(comparison) = comparison {
        figures_list("magpie", &comparison.ours, each, page);
        figures_list(&comparison.peer.name, &comparison.peer.figures, each, page);
    }
    let machine = &record.machine;
    let work = serde_json::to_string_pretty(&record.workload)?;
    _ = writeln!(
        page,
        "<details><summary>How it was measured: {}, magpie-bench {}</summary><pre class=\"card\">{}\n\n{}, {} cores, {} memory, Linux {}\n\n{}</pre></details>",
        escaped(&record.at),
        escaped(&record.magpie_bench),
        escaped(&record.command.join(" ")),
        escaped(&machine.cpu),
        machine.cores,
        bytes(machine.memory_mib as f64 * 1_048_576.0),
        escaped(&machine.kernel),
        escaped(&work),
    );
    Ok(())
}

/// The page.
pub(crate) fn page(
    sections: &[Section],
    comparisons: &[(&Record, Comparison)],
    overview: &[Chart],
) -> anyhow::Result<String> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>magpie-bench report</title><style>{CSS}{}</style></head><body><main>\n",
        chart::style()
    );
    let mut machines: Vec<_> = sections.iter().map(|section| &section.record.machine).collect();
    machines.dedup();
    let machine = |m: &&crate::record::Machine| {
        format!("{}, {} cores, {} memory", m.cpu, m.cores, bytes(m.memory_mib as f64 * 1_048_576.0))
    };
    let machines: Vec<_> = machines.iter().map(machine).collect();
    let mut days: Vec<_> = sections.iter().map(|s| s.record.at.get(..10).unwrap_or_default()).collect();
    days.sort_unstable();
    days.dedup();
    let count = sections.len();
    let results = if count == 1 { "1 result".to_owned() } else { format!("{count} results") };
    _ = writeln!(
        page,
        "<h1>magpie-bench report</h1><p class=\"muted\">{results}, {}, {}</p>",
        escaped(&days.join(", ")),
        escaped(&machines.join("; "))
    );
    let ours = sections.iter().filter_map(|s| s.record.figures.as_ref()).chain(comparisons.iter().map(|c| &c.1.ours));
    let (clean, all) = ours.fold((0, 0), |(clean, all), f| (clean + usize::from(f.accounts.are_clean()), all + 1));
    let (class, verdict) = if clean == all {
        ("good", format!("Accounts: lost 0, duplicated 0, reordered 0 in all {all}"))
    } else {
        ("bad", format!("Accounts: {} of {all} lost, duplicated or reordered messages", all - clean))
    };
    _ = writeln!(page, "<div class=\"verdict {class}\">{verdict}</div>");
    comparisons_table(comparisons, &mut page);
    runs_table(sections, &mut page);
    card_of(overview, &mut page);
    page.push_str("<h2>Each result</h2>\n");
    let mut compared = comparisons.iter();
    for one in sections {
        let comparison = if one.record.compared.is_some() { compared.next().map(|(_, c)| c) } else { None };
        section(one, comparison, &mut page)?;
    }
    page.push_str(FOOT);
    Ok(page)
}
