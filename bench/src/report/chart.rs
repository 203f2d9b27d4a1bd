//! Charts as SVG: lines and bars, in colours that follow the reader's light or dark.

use anyhow::anyhow;
use plotters::{
    coord::Shift,
    prelude::{
        Circle, DrawingArea, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend, ShapeStyle, Text,
    },
    style::text_anchor::{HPos, Pos, VPos},
};

/// A colour in the light, and what takes its place in the dark. The light one is drawn; [`STYLE`] swaps it.
type Ink = (u32, u32);

const TEXT: Ink = (0x1F_2937, 0xE5_E7EB);
const MUTED: Ink = (0x64_748B, 0x94_A3B8);
const GRID: Ink = (0xE2_E8F0, 0x33_3F52);
const SURFACE: Ink = (0xFD_FDFE, 0x16_1D2B);
/// Lines and bars: ours, the peer, and others. They can be told apart by people who see red and green as one.
const SERIES: [Ink; 6] = [
    (0x25_63EB, 0x6E_A8FE),
    (0xEA_7A1A, 0xF5_A04C),
    (0x0F_9F8A, 0x3B_CFB8),
    (0x8B_5CF6, 0xB4_97FB),
    (0xDB_2777, 0xF4_72B6),
    (0x78_8496, 0xA8_B3C2),
];

/// Everything is drawn at twice its size, because SVG of plotters knows whole pixels only.
pub(crate) const FINE: i32 = 2;
const WIDTH: i32 = 640 * FINE;
const FONT: &str = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif";

/// Swaps the colours in the dark: for the page once, and inside each file that stands alone.
pub(crate) fn style() -> String {
    let all = [TEXT, MUTED, GRID, SURFACE].into_iter().chain(SERIES);
    let swap = |(light, dark): Ink| {
        format!("svg [fill=\"#{light:06X}\"]{{fill:#{dark:06X}}}svg [stroke=\"#{light:06X}\"]{{stroke:#{dark:06X}}}")
    };
    format!("@media (prefers-color-scheme: dark){{{}}}", all.map(swap).collect::<String>())
}

/// A drawn chart.
#[derive(Debug)]
pub(crate) struct Chart {
    /// For a file's name: lower case and dashes.
    pub(crate) name: String,
    /// To stand in a page, which has [`style`].
    pub(crate) svg: String,
}

impl Chart {
    /// To stand alone.
    pub(crate) fn file(&self) -> String {
        match self.svg.split_once('>') {
            Some((head, rest)) => format!("{head}><style>{}</style>{rest}", style()),
            None => self.svg.clone(),
        }
    }
}

/// A line of a chart.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Index of its colour.
    pub(crate) color: usize,
    pub(crate) dashed: bool,
    pub(crate) dots: bool,
}

/// What an axis spans, and where it is labelled.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to at least this value, labelled at four or five round values.
    pub(crate) fn up_to(most: f64, label: impl Fn(f64) -> String) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let rough = most / 4.0;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * unit).find(|s| *s >= rough).unwrap_or(rough);
        let count = (most / step - 1e-9).ceil() as usize;
        let ticks = (0..=count).map(|n| (n as f64 * step, label(n as f64 * step))).collect();
        Self { from: 0.0, to: count as f64 * step, ticks }
    }

    fn place(&self, value: f64, from: i32, to: i32) -> i32 {
        let part = (value - self.from) / (self.to - self.from).max(1e-12);
        from + (part * f64::from(to - from)).round() as i32
    }
}

/// Lines over an axis.
pub(crate) struct LineChart {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) x_title: String,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// Bars in groups.
pub(crate) struct BarChart {
    pub(crate) name: String,
    pub(crate) title: String,
    /// What is better, and what the value is of.
    pub(crate) note: String,
    pub(crate) groups: Vec<Group>,
}

/// Bars that belong together.
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) text: String,
    pub(crate) color: usize,
}

struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

fn rgb((light, _): Ink) -> RGBColor {
    RGBColor((light >> 16) as u8, (light >> 8) as u8, light as u8)
}

fn line(ink: Ink, width: i32) -> ShapeStyle {
    ShapeStyle { color: rgb(ink).into(), filled: false, stroke_width: (width * FINE / 2) as u32 }
}

fn filled(ink: Ink) -> ShapeStyle {
    ShapeStyle { color: rgb(ink).into(), filled: true, stroke_width: 0 }
}

/// About how wide a text is, in the pixels of the drawing.
fn width_of(text: &str, size: i32) -> i32 {
    (text.chars().count() as f64 * f64::from(size * FINE) * 0.56) as i32
}

impl Canvas<'_> {
    fn text(&self, text: &str, at: (i32, i32), size: i32, ink: Ink, anchor: HPos) -> anyhow::Result<()> {
        // The backend divides by 1.24.
        let font = (FONT, f64::from(size * FINE) * 1.24).into_font();
        let style = font.color(&rgb(ink)).pos(Pos::new(anchor, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), at, style)).map_err(|e| anyhow!("{e}"))
    }

    fn path(&self, points: Vec<(i32, i32)>, style: ShapeStyle) -> anyhow::Result<()> {
        self.area.draw(&PathElement::new(points, style)).map_err(|e| anyhow!("{e}"))
    }

    fn box_of(&self, corners: [(i32, i32); 2], ink: Ink) -> anyhow::Result<()> {
        self.area.draw(&Rectangle::new(corners, filled(ink))).map_err(|e| anyhow!("{e}"))
    }

    /// The title, and under it what each colour is.
    fn head(&self, title: &str, note: &str, names: &[(String, usize, bool)]) -> anyhow::Result<()> {
        self.text(title, (16 * FINE, 21 * FINE), 17, TEXT, HPos::Left)?;
        if !note.is_empty() {
            self.text(note, (WIDTH - 16 * FINE, 20 * FINE), 13, MUTED, HPos::Right)?;
        }
        let (mut x, y) = (16 * FINE, 42 * FINE);
        for (name, color, dashed) in names {
            let (ink, end) = (SERIES[color % SERIES.len()], x + 14 * FINE);
            if *dashed {
                self.dashes(&[(x, y), (end, y)], ink)?;
            } else {
                self.box_of([(x, y - 2 * FINE), (end, y + 2 * FINE)], ink)?;
            }
            self.text(name, (end + 6 * FINE, y), 13, MUTED, HPos::Left)?;
            x = end + 24 * FINE + width_of(name, 13);
        }
        Ok(())
    }

    /// A broken line between two points.
    fn dashes(&self, points: &[(i32, i32)], ink: Ink) -> anyhow::Result<()> {
        let [from, to] = points else { return Ok(()) };
        let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
        let long = dx.hypot(dy);
        let (dash, step) = (f64::from(5 * FINE), f64::from(9 * FINE));
        let at = |way: f64| (from.0 + (dx * way / long).round() as i32, from.1 + (dy * way / long).round() as i32);
        let mut way = 0.0;
        while way < long {
            self.path(vec![at(way), at((way + dash).min(long))], line(ink, 4))?;
            way += step;
        }
        Ok(())
    }
}

fn draw(
    name: &str,
    title: &str,
    height: i32,
    what: impl FnOnce(&Canvas) -> anyhow::Result<()>,
) -> anyhow::Result<Chart> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        area.fill(&rgb(SURFACE)).map_err(|e| anyhow!("{e}"))?;
        let canvas = Canvas { area };
        what(&canvas)?;
        canvas.area.present().map_err(|e| anyhow!("{e}"))?;
    }
    let size = format!("width=\"{WIDTH}\" height=\"{height}\"");
    let half = format!("width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{title}\"", WIDTH / FINE, height / FINE);
    let svg = svg.replacen(&size, &half, 1);
    Ok(Chart { name: name.to_owned(), svg: svg.trim().to_owned() })
}

impl LineChart {
    /// Draws it.
    pub(crate) fn draw(&self) -> anyhow::Result<Chart> {
        let height = 300 * FINE;
        let longest = self.y.ticks.iter().map(|(_, label)| width_of(label, 13)).max().unwrap_or_default();
        let (left, right) = (24 * FINE + longest, WIDTH - 32 * FINE);
        let (top, bottom) = (66 * FINE, height - 46 * FINE);
        draw(&self.name, &self.title, height, |canvas| {
            let names: Vec<_> = self.series.iter().map(|s| (s.name.clone(), s.color, s.dashed)).collect();
            canvas.head(&self.title, "", &names)?;
            for (at, label) in &self.y.ticks {
                let y = self.y.place(*at, bottom, top);
                canvas.path(vec![(left, y), (right, y)], line(GRID, 2))?;
                canvas.text(label, (left - 8 * FINE, y), 13, MUTED, HPos::Right)?;
            }
            for (at, label) in &self.x.ticks {
                let x = self.x.place(*at, left, right);
                canvas.path(vec![(x, bottom), (x, bottom + 4 * FINE)], line(GRID, 2))?;
                canvas.text(label, (x, bottom + 15 * FINE), 13, MUTED, HPos::Center)?;
            }
            canvas.text(&self.x_title, ((left + right) / 2, height - 12 * FINE), 13, MUTED, HPos::Center)?;
            for series in &self.series {
                let place = |(x, y): &(f64, f64)| (self.x.place(*x, left, right), self.y.place(*y, bottom, top));
                let points: Vec<_> = series.points.iter().map(place).collect();
                let ink = SERIES[series.color % SERIES.len()];
                if series.dots {
                    for point in &points {
                        let dot = Circle::new(*point, 3 * FINE, filled(ink));
                        canvas.area.draw(&dot).map_err(|e| anyhow!("{e}"))?;
                    }
                }
                if series.dashed {
                    canvas.dashes(&points, ink)?;
                } else {
                    canvas.path(points, line(ink, 4))?;
                }
            }
            Ok(())
        })
    }
}

impl BarChart {
    /// Draws it.
    pub(crate) fn draw(&self) -> anyhow::Result<Chart> {
        let (bar, gap, top) = (18 * FINE, 16 * FINE, 66 * FINE);
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = top + bars as i32 * bar + self.groups.len() as i32 * gap + 4 * FINE;
        let all = || self.groups.iter().flat_map(|group| &group.bars);
        let most = all().map(|bar| bar.value).filter(|v| v.is_finite()).fold(0.0, f64::max).max(1e-12);
        let label = self.groups.iter().map(|group| width_of(&group.label, 13)).max().unwrap_or_default();
        let text = all().map(|bar| width_of(&bar.text, 13)).max().unwrap_or_default();
        let left = 16 * FINE + label.clamp(80 * FINE, 240 * FINE) + 10 * FINE;
        let right = WIDTH - 24 * FINE - text - 8 * FINE;
        let mut names: Vec<(String, usize, bool)> = Vec::new();
        for bar in all() {
            if !names.iter().any(|(name, ..)| *name == bar.name) {
                names.push((bar.name.clone(), bar.color, false));
            }
        }
        draw(&self.name, &self.title, height, |canvas| {
            canvas.head(&self.title, &self.note, &names)?;
            let mut y = top;
            for group in &self.groups {
                let tall = group.bars.len() as i32 * bar;
                canvas.text(&group.label, (left - 10 * FINE, y + tall / 2), 13, TEXT, HPos::Right)?;
                canvas.path(vec![(left, y - gap / 4), (left, y + tall + gap / 4)], line(GRID, 2))?;
                for one in &group.bars {
                    let long = (one.value.max(0.0) / most * f64::from(right - left)).round() as i32;
                    let end = left + if one.value.is_finite() { long.max(FINE) } else { 0 };
                    canvas.box_of([(left, y + FINE), (end, y + bar - FINE)], SERIES[one.color % SERIES.len()])?;
                    canvas.text(&one.text, (end + 8 * FINE, y + bar / 2), 13, TEXT, HPos::Left)?;
                    y += bar;
                }
                y += gap;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_value() {
        let axis = Axis::up_to(930.0, |v| v.to_string());
        assert_eq!((axis.to, axis.ticks.len()), (1000.0, 5));
        assert_eq!(Axis::up_to(0.0, |v| v.to_string()).to, 1.0);
    }

    #[test]
    fn a_chart_stands_alone() {
        let group = Group {
            label: "direct <b>".into(),
            bars: vec![Bar { name: "magpie".into(), value: 1.0, text: "1 ms".into(), color: 0 }],
        };
        let bars = BarChart { name: "b".into(), title: "CPU".into(), note: String::new(), groups: vec![group] };
        let chart = bars.draw().unwrap();
        let file = chart.file();
        assert!(file.starts_with("<svg ") && file.ends_with("</svg>"), "{file}");
        assert!(file.contains("<style>") && file.contains("direct &lt;b&gt;"), "{file}");
        assert!(!file.contains("url(") && !file.contains("<image"));
    }
}
