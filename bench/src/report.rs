//! `magpie-bench report`: what results say, as a table, as a page, as pictures.

mod chart;
mod charts;
mod number;
mod page;
mod picture;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use self::chart::Chart;
use crate::{
    figures::Figures,
    record::{self, Comparison, Record},
};

pub(crate) use self::number::{bytes, grouped, plain};

/// Which results, and what is made of them.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Files that `--out` wrote
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write one self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write each chart as an SVG file into this folder
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Write each chart as a PNG file into this folder
    #[arg(long, value_name = "FOLDER")]
    png: Option<PathBuf>,
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// A name for each result that no other has.
fn names(records: &[Record]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for record in records {
        let path = Path::new(&record.name);
        let first = charts::slug(&path.file_stem().map_or(record.name.clone(), |stem| stem.to_string_lossy().into()));
        let unused = |name: &String| !names.contains(name);
        let numbered = (2..).map(|n| format!("{first}-{n}"));
        let name = std::iter::once(first.clone()).chain(numbered).find(unused);
        names.push(name.unwrap_or(first));
    }
    names
}

fn line(name: &str, figures: &Figures, out: &mut impl Write) -> anyhow::Result<()> {
    let number = |value: f64| if value > 0.0 { plain(value) } else { "–".to_owned() };
    writeln!(
        out,
        "{name:<28} {:>10} {:>12} {:>9} {:>9} {:>9}  {} / {} / {}",
        number(figures.per_s),
        number(figures.cpu_ms_per_message),
        number(figures.p50_ms),
        number(figures.p99_ms),
        figures.rss_mib.map_or("–".to_owned(), |mib| bytes(mib * 1_048_576.0)),
        figures.accounts.lost,
        figures.accounts.duplicated,
        figures.accounts.reordered,
    )?;
    Ok(())
}

/// Reads the results and makes of them what was asked for; a table in any case.
pub(crate) fn execute(args: &ReportArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let mut records = record::read(&args.files)?;
    for record in records.iter_mut().filter(|record| record.workload.seconds < charts::SLOPE_SECONDS_MIN) {
        record.figures.iter_mut().for_each(|figures| figures.memory_slope_per_hour = None);
    }
    let mut comparisons: Vec<(&Record, Comparison)> = Vec::new();
    for record in &records {
        comparisons.extend(record.comparison()?.map(|comparison| (record, comparison)));
    }
    let heads = ["a second", "CPU ms each", "p50 ms", "p99 ms", "memory"];
    let [rate, cpu, p50, p99, memory] = heads;
    writeln!(out, "{:<28} {rate:>10} {cpu:>12} {p50:>9} {p99:>9} {memory:>9}  lost / dup / reord", "work")?;
    for record in &records {
        if let Some(figures) = &record.figures {
            line(&record.name, figures, out)?;
        }
    }
    for (record, comparison) in &comparisons {
        line(&format!("{}: magpie", record.name), &comparison.ours, out)?;
        line(&format!("{}: {}", record.name, comparison.peer.name), &comparison.peer.figures, out)?;
    }
    if args.html.is_none() && args.svg.is_none() && args.png.is_none() {
        return Ok(());
    }
    let names = names(&records);
    let overview = charts::overview(&records, &names, &comparisons)?;
    let mut sections = Vec::new();
    for (record, name) in records.iter().zip(&names) {
        sections.push(page::Section { record, charts: charts::over_time(name, record)? });
    }
    let all: Vec<&Chart> = overview.iter().chain(sections.iter().flat_map(|section| &section.charts)).collect();
    if let Some(folder) = &args.svg {
        make_folder(folder)?;
        for chart in &all {
            write_file(&folder.join(format!("{}.svg", chart.name)), &chart.file())?;
        }
        writeln!(out, "wrote {} charts into {}", all.len(), folder.display())?;
    }
    if let Some(folder) = &args.png {
        make_folder(folder)?;
        let painter = picture::Painter::new();
        for chart in &all {
            painter.write(chart, &folder.join(format!("{}.png", chart.name)))?;
        }
        writeln!(out, "wrote {} charts into {}", all.len(), folder.display())?;
    }
    if let Some(path) = &args.html {
        write_file(path, &page::page(&sections, &comparisons, &overview)?)?;
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(())
}
