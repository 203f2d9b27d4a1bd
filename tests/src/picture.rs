//! A terminal's screen as a picture: the escape sequences of `tmux capture-pane -e` become an SVG.

use std::fmt::Write;

/// Of one cell, in pixels.
const CELL: (f64, f64) = (8.4, 18.0);
const MARGIN: f64 = 12.0;
/// The first sixteen colours.
const COLOURS: [&str; 16] = [
    "#1e1e1e", "#cd3131", "#2fae6b", "#c7a53b", "#3b78c7", "#a94fb5", "#2fa3ad", "#d4d4d4", "#7a7a7a", "#f05b5b",
    "#4fd08c", "#f2d75c", "#5d9bf0", "#d07fdc", "#5cc8d2", "#ffffff",
];
const FOREGROUND: &str = "#d4d4d4";
const BACKGROUND: &str = "#1e1e1e";

#[derive(Clone, Debug, Default, PartialEq)]
struct Pen {
    fore: Option<String>,
    back: Option<String>,
    bold: bool,
    dim: bool,
    reversed: bool,
}

fn indexed(n: u8) -> String {
    match n {
        0..16 => COLOURS[usize::from(n)].to_owned(),
        16..232 => {
            let n = n - 16;
            let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * u32::from(n) };
            format!("#{:02x}{:02x}{:02x}", level(n / 36), level(n / 6 % 6), level(n % 6))
        }
        232.. => format!("#{0:02x}{0:02x}{0:02x}", 8 + 10 * u32::from(n - 232)),
    }
}

impl Pen {
    fn heed(&mut self, sequence: &str) {
        let mut numbers = sequence.split(';').map(|n| n.parse::<u8>().unwrap_or(0));
        while let Some(n) = numbers.next() {
            match n {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                27 => self.reversed = false,
                30..=37 => self.fore = Some(indexed(n - 30)),
                90..=97 => self.fore = Some(indexed(n - 82)),
                40..=47 => self.back = Some(indexed(n - 40)),
                100..=107 => self.back = Some(indexed(n - 92)),
                39 => self.fore = None,
                49 => self.back = None,
                38 | 48 => {
                    let colour = (numbers.next() == Some(5)).then(|| numbers.next()).flatten().map(indexed);
                    if n == 38 { self.fore = colour } else { self.back = colour }
                }
                _ => {}
            }
        }
    }

    fn colours(&self) -> (String, Option<String>) {
        let fore = self.fore.clone().unwrap_or_else(|| FOREGROUND.to_owned());
        if !self.reversed {
            return (fore, self.back.clone());
        }
        (self.back.clone().unwrap_or_else(|| BACKGROUND.to_owned()), Some(fore))
    }
}

/// One letter in its place.
struct Cell {
    letter: String,
    column: usize,
    columns: usize,
    pen: Pen,
}

fn cells(line: &str, pen: &mut Pen, width: &impl Fn(&str) -> usize) -> Vec<Cell> {
    let (mut cells, mut column, mut rest): (Vec<Cell>, usize, &str) = (Vec::new(), 0, line);
    while let Some(c) = rest.chars().next() {
        if let Some((sequence, after)) = rest.strip_prefix("\u{1b}[").and_then(|rest| rest.split_once('m')) {
            pen.heed(sequence);
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        let columns = width(c.encode_utf8(&mut [0; 4]));
        match cells.last_mut() {
            // What takes no column belongs to the letter before.
            Some(last) if columns == 0 => last.letter.push(c),
            _ => cells.push(Cell { letter: c.to_string(), column, columns, pen: pen.clone() }),
        }
        column += columns;
    }
    cells
}

/// The picture of a screen of so many columns; `width` says how many a letter takes.
pub fn svg(screen: &str, columns: usize, width: impl Fn(&str) -> usize) -> String {
    let lines: Vec<&str> = screen.trim_end_matches('\n').split('\n').collect();
    let (wide, high) = (columns as f64 * CELL.0 + 2.0 * MARGIN, lines.len() as f64 * CELL.1 + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide:.0}\" height=\"{high:.0}\" viewBox=\"0 0 {wide:.0} {high:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Noto Sans Mono CJK SC', monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    let mut pen = Pen::default();
    for (row, line) in lines.iter().enumerate() {
        let (top, base) = (MARGIN + row as f64 * CELL.1, MARGIN + row as f64 * CELL.1 + 13.5);
        let cells = cells(line, &mut pen, &width);
        let mut runs: Vec<Vec<&Cell>> = Vec::new();
        for cell in &cells {
            let joins = |run: &&mut Vec<&Cell>| {
                run.first().is_some_and(|first| first.pen == cell.pen && first.columns == 1 && cell.columns == 1)
            };
            match runs.last_mut().filter(joins) {
                Some(run) => run.push(cell),
                None => runs.push(vec![cell]),
            }
        }
        for run in &runs {
            let (Some(first), taken) = (run.first(), run.iter().map(|cell| cell.columns).sum::<usize>()) else {
                continue;
            };
            let (x, length) = (MARGIN + first.column as f64 * CELL.0, taken as f64 * CELL.0);
            let (fore, back) = first.pen.colours();
            if let Some(back) = back {
                _ = writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{}\" fill=\"{back}\"/>",
                    CELL.1
                );
            }
            let text: String = run.iter().map(|cell| cell.letter.as_str()).collect();
            if text.trim().is_empty() {
                continue;
            }
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            let bold = if first.pen.bold { " font-weight=\"bold\"" } else { "" };
            let dim = if first.pen.dim { " opacity=\"0.6\"" } else { "" };
            _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{base:.1}\" fill=\"{fore}\"{bold}{dim} xml:space=\"preserve\" textLength=\"{length:.1}\" \
                 lengthAdjust=\"spacingAndGlyphs\">{text}</text>"
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_wide_letters_have_their_places() {
        let width = |letter: &str| if letter == "你" { 2 } else { 1 };
        let drawn = svg("\u{1b}[1;32ma<\u{1b}[0m你b\n\u{1b}[7mx\u{1b}[0m", 10, width);
        assert!(drawn.contains("fill=\"#2fae6b\" font-weight=\"bold\""), "{drawn}");
        assert!(drawn.contains(">a&lt;</text>") && drawn.contains(">你</text>"), "{drawn}");
        let b = drawn.lines().find(|line| line.ends_with(">b</text>")).unwrap_or_default();
        assert!(b.contains(&format!("x=\"{:.1}\"", MARGIN + 4.0 * CELL.0)), "{b}");
        assert!(drawn.contains("fill=\"#d4d4d4\"/>"), "what is reversed has a background: {drawn}");
    }
}
