//! Numbers as people read them.

/// With about three digits that count: 12345 as `12,345`, 0.02134 as `0.0213`.
pub(crate) fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    if size >= 1000.0 {
        return grouped(value);
    }
    let digits = match size {
        s if s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 || s == 0.0 => 2,
        s => (2 - s.log10().floor() as i32).clamp(2, 6) as usize,
    };
    trimmed(format!("{value:.digits$}"))
}

/// Without the zeros that say nothing.
fn trimmed(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number with a comma every three digits.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// Short, for axes: `12.5 k`, `3 M`.
pub(crate) fn short(value: f64) -> String {
    let scales = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    let scale = scales.into_iter().find(|(scale, _)| value.abs() >= *scale);
    scale.map_or_else(|| plain(value), |(scale, suffix)| plain(value / scale) + suffix)
}

/// Bytes, by thousands.
pub(crate) fn bytes(value: f64) -> String {
    let scales = [(1e18, "EB"), (1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B")];
    let scale = scales.into_iter().find(|(scale, _)| value.abs() >= *scale);
    let (scale, suffix) = scale.unwrap_or((1.0, "B"));
    format!("{} {suffix}", plain(value / scale))
}

/// A time given in milliseconds.
pub(crate) fn milliseconds(value: f64) -> String {
    match value {
        v if v >= 120_000.0 => format!("{} min", plain(v / 60_000.0)),
        v if v >= 1000.0 => format!("{} s", plain(v / 1000.0)),
        v => format!("{} ms", plain(v)),
    }
}

/// A part as a percentage, with its sign where that matters.
pub(crate) fn percent(part: f64) -> String {
    format!("{} %", plain(part * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        let plain = |value| super::plain(value);
        assert_eq!([plain(0.0), plain(1.0), plain(12.34), plain(0.021_34)], ["0", "1", "12.3", "0.0213"]);
        assert_eq!([plain(999.6), plain(1_234_567.0), plain(-4321.0)], ["1000", "1,234,567", "-4,321"]);
        assert_eq!([short(950.0), short(12_500.0), short(3e6)], ["950", "12.5 k", "3 M"]);
        assert_eq!([bytes(291.0), bytes(35_000.0), bytes(2.5e12)], ["291 B", "35 KB", "2.5 TB"]);
        assert_eq!([milliseconds(0.4), milliseconds(1500.0), milliseconds(150_000.0)], ["0.4 ms", "1.5 s", "2.5 min"]);
        assert_eq!(milliseconds(100_000.0), "100 s");
        assert_eq!([percent(0.018), plain(f64::NAN)], ["1.8 %", "–"]);
    }
}
