//! Charts as PNG, for a README that shows no SVG. The font comes with us: a machine that measures need not have one.

use std::{path::Path, sync::Arc};

use anyhow::{Context, anyhow};
use resvg::{
    render, tiny_skia,
    usvg::{Options, Tree, fontdb::Database},
};

use super::chart::{Chart, FINE};

/// Roboto Regular (Apache-2.0), the Latin letters of it: see `bench/font/README.md`.
const FONT: &[u8] = include_bytes!("../../font/Roboto-subset.ttf");

/// Draws charts that were drawn as SVG, in the colours of the light.
pub(crate) struct Painter(Options<'static>);

impl Painter {
    pub(crate) fn new() -> Self {
        let mut fonts = Database::new();
        fonts.load_font_data(FONT.to_vec());
        // What stands for a family that is not there.
        fonts.set_serif_family("Roboto");
        let options = Options { fontdb: Arc::new(fonts), font_family: "Roboto".into(), ..Options::default() };
        Self(options)
    }

    /// The chart as pixels, two to each of the page.
    pub(crate) fn paint(&self, chart: &Chart) -> anyhow::Result<tiny_skia::Pixmap> {
        let tree = Tree::from_str(&chart.svg, &self.0).with_context(|| format!("the chart {}", chart.name))?;
        let (fine, size) = (FINE as f32, tree.size());
        let (width, height) = ((size.width() * fine) as u32, (size.height() * fine) as u32);
        let mut pixels = tiny_skia::Pixmap::new(width, height).ok_or_else(|| anyhow!("an empty chart"))?;
        render(&tree, tiny_skia::Transform::from_scale(fine, fine), &mut pixels.as_mut());
        Ok(pixels)
    }

    /// The same, into a file.
    pub(crate) fn write(&self, chart: &Chart, path: &Path) -> anyhow::Result<()> {
        self.paint(chart)?.save_png(path).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::{Bar, BarChart, Group};

    fn dark_pixels(title: &str) -> usize {
        let bar = Bar { name: "magpie".into(), value: 1.0, text: "1 ms".into(), color: 0 };
        let groups = vec![Group { label: "direct".into(), bars: vec![bar] }];
        let chart = BarChart { name: "b".into(), title: title.into(), note: String::new(), groups }.draw().unwrap();
        let pixels = Painter::new().paint(&chart).unwrap();
        assert_eq!(pixels.width(), 1280);
        // The ink of the title, in the place of the title.
        let at = |x: u32, y: u32| pixels.pixel(x, y).unwrap();
        (0..1280).flat_map(|x| (20..64).map(move |y| (x, y))).filter(|(x, y)| at(*x, *y).red() < 0x60).count()
    }

    #[test]
    fn text_is_drawn_without_a_font_of_the_machine() {
        let (none, short, long) = (dark_pixels(""), dark_pixels("CPU"), dark_pixels("CPU of a message – µs, ≤ 1"));
        assert!(none == 0 && short > 100 && long > 3 * short, "{none} {short} {long}");
    }
}
