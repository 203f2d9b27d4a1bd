//! The clock on the wall: UTC plus what the system's time zone file says (TZif and its rule for the years to come,
//! RFC 9636).

use std::{fs, path::Path};

const ZONES: &str = "/usr/share/zoneinfo";
const DAY: i64 = 86_400;

/// A moment as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
}

/// Where the wall is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    /// From this second since 1970 on, so many seconds are added to UTC.
    changes: Vec<(i64, i64)>,
    /// Before the first change.
    first: i64,
    /// After the last.
    rule: Option<Rule>,
}

/// Standard time and, if there is one, the summer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    offset: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    offset: i64,
    begins: Yearly,
    ends: Yearly,
}

/// The `week`th `weekday` of a month (5 is the last one), and the second of that day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Yearly {
    month: i64,
    week: i64,
    weekday: i64,
    second: i64,
}

impl Zone {
    /// The zone that `TZ` names, else the system's; UTC when there is none that can be read.
    pub(super) fn system() -> Self {
        let zone = match std::env::var("TZ") {
            Err(_) => fs::read("/etc/localtime").ok().and_then(|bytes| Self::parse(&bytes)),
            Ok(name) => {
                let name = name.trim_start_matches(':');
                let file = fs::read(Path::new(ZONES).join(name)).ok().and_then(|bytes| Self::parse(&bytes));
                file.or_else(|| Some(Self { rule: Some(Rule::parse(name)?), ..Self::default() }))
            }
        };
        zone.unwrap_or_default()
    }

    /// What the clock shows at this moment, in milliseconds since 1970.
    pub(super) fn at(&self, time_ms: u64) -> Local {
        let utc = i64::try_from(time_ms / 1000).unwrap_or(0);
        let local = utc.saturating_add(self.offset(utc));
        let (year, month, day) = date(local.div_euclid(DAY));
        let second = local.rem_euclid(DAY);
        Local { year, month, day, hour: second / 3600, minute: second / 60 % 60 }
    }

    fn offset(&self, utc: i64) -> i64 {
        let passed = self.changes.partition_point(|(at, _)| *at <= utc);
        match (self.rule, passed.checked_sub(1).map(|at| self.changes[at].1)) {
            (Some(rule), _) if passed == self.changes.len() => rule.offset(utc),
            (_, Some(offset)) => offset,
            (_, None) => self.first,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Header::parse(bytes)?;
        if bytes.get(4)? < &b'2' {
            return Self::parse_block(bytes, &header, 4);
        }
        let bytes = bytes.get(header.end(4)..)?;
        let header = Header::parse(bytes)?;
        let mut zone = Self::parse_block(bytes, &header, 8)?;
        let footer = std::str::from_utf8(bytes.get(header.end(8)..)?).ok()?;
        zone.rule = Rule::parse(footer.trim_matches('\n'));
        Some(zone)
    }

    fn parse_block(bytes: &[u8], header: &Header, width: usize) -> Option<Self> {
        let body = bytes.get(Header::LEN..)?;
        let (times, body) = body.split_at_checked(header.times * width)?;
        let (kinds, body) = body.split_at_checked(header.times)?;
        let (types, _) = body.split_at_checked(header.types * 6)?;
        let offsets: Vec<i64> = types.chunks_exact(6).map(|kind| signed(&kind[..4])).collect();
        let change = |(at, kind): (&[u8], &u8)| Some((signed(at), *offsets.get(usize::from(*kind))?));
        let changes = times.chunks_exact(width).zip(kinds).map(change).collect::<Option<_>>()?;
        Some(Self { changes, first: *offsets.first()?, rule: None })
    }
}

/// How much of what a block of the file holds.
struct Header {
    times: usize,
    types: usize,
    /// Bytes of the rest, with 4 and with 8 bytes a time.
    rest: [usize; 2],
}

impl Header {
    const LEN: usize = 44;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..Self::LEN).filter(|head| head.starts_with(b"TZif"))?;
        let count = |at: usize| usize::try_from(signed(&head[20 + 4 * at..24 + 4 * at])).ok();
        let (utc, standard, leaps) = (count(0)?, count(1)?, count(2)?);
        let (times, types, letters) = (count(3)?, count(4)?, count(5)?);
        let rest = |width: usize| letters + leaps * (width + 4) + standard + utc;
        Some(Self { times, types, rest: [rest(4), rest(8)] })
    }

    fn end(&self, width: usize) -> usize {
        Self::LEN + self.times * (width + 1) + self.types * 6 + self.rest[usize::from(width == 8)]
    }
}

/// A big-endian number of four or eight bytes.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |n, byte| (n << 8) | i64::from(*byte))
}

impl Rule {
    /// As in `CET-1CEST,M3.5.0,M10.5.0/3`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let (_, rest) = split_name(parts.next()?)?;
        let (offset, rest) = split_time(rest)?;
        let rule = Self { offset: -offset, summer: None };
        if rest.is_empty() {
            return Some(rule);
        }
        let (_, rest) = split_name(rest)?;
        let offset = if rest.is_empty() { rule.offset + 3600 } else { -split_time(rest)?.0 };
        let summer = Summer { offset, begins: Yearly::parse(parts.next()?)?, ends: Yearly::parse(parts.next()?)? };
        Some(Self { summer: Some(summer), ..rule })
    }

    fn offset(&self, utc: i64) -> i64 {
        let Some(summer) = self.summer else { return self.offset };
        let (year, ..) = date((utc + self.offset).div_euclid(DAY));
        let begins = summer.begins.second_of(year) - self.offset;
        let ends = summer.ends.second_of(year) - summer.offset;
        let within = if begins < ends { (begins..ends).contains(&utc) } else { !(ends..begins).contains(&utc) };
        if within { summer.offset } else { self.offset }
    }
}

impl Yearly {
    /// As in `M10.5.0/3`.
    fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.split_once('/').unwrap_or((text, "2"));
        let mut numbers = day.strip_prefix('M')?.split('.').map(|number| number.parse::<i64>().ok());
        let (month, week, weekday) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let valid = (1..=12).contains(&month) && (1..=5).contains(&week) && (0..=6).contains(&weekday);
        valid.then_some(Self { month, week, weekday, second: split_time(time)?.0 })
    }

    /// Of this year, in seconds of local time since 1970.
    fn second_of(&self, year: i64) -> i64 {
        let first = days(year, self.month, 1);
        // The first of January 1970 was a Thursday.
        let day = first + (self.weekday - (first + 4)).rem_euclid(7) + 7 * (self.week - 1);
        let next = if self.month == 12 { days(year + 1, 1, 1) } else { days(year, self.month + 1, 1) };
        (if day >= next { day - 7 } else { day }) * DAY + self.second
    }
}

/// A zone's name, letters or anything in `<>`, and the rest.
fn split_name(text: &str) -> Option<(&str, &str)> {
    let len = match text.strip_prefix('<') {
        Some(quoted) => quoted.find('>')? + 2,
        None => text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()),
    };
    (len >= 3).then(|| text.split_at(len))
}

/// Hours with or without minutes and seconds, in seconds, and the rest.
fn split_time(text: &str) -> Option<(i64, &str)> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.trim_start_matches('+')),
    };
    let len = text.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(text.len());
    let (time, rest) = text.split_at(len);
    let mut seconds = 0;
    for (part, unit) in time.split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i64>().ok().filter(|n| *n < 200)? * unit;
    }
    Some((sign * seconds, rest))
}

/// Days from 1970 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

/// The inverse of [`days`].
fn date(since_1970: i64) -> (i64, i64, i64) {
    let shifted = since_1970 + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(zone: &Zone, utc: i64) -> String {
        let at = zone.at(u64::try_from(utc).unwrap() * 1000);
        format!("{:04}-{:02}-{:02} {:02}:{:02}", at.year, at.month, at.day, at.hour, at.minute)
    }

    fn ruled(text: &str) -> Zone {
        Zone { rule: Some(Rule::parse(text).unwrap()), ..Zone::default() }
    }

    #[test]
    fn dates_and_days_are_each_others_inverse() {
        for day in (-200_000..200_000).step_by(17) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(days(2024, 2, 29) + 1), (2024, 3, 1));
    }

    #[test]
    fn rules_know_summer_north_and_south() {
        let berlin = ruled("CET-1CEST,M3.5.0,M10.5.0/3");
        assert_eq!(shown(&berlin, 1_743_296_399), "2025-03-30 01:59");
        assert_eq!(shown(&berlin, 1_743_296_400), "2025-03-30 03:00");
        assert_eq!(shown(&berlin, 1_761_440_400), "2025-10-26 02:00", "the second time");
        let sydney = ruled("AEST-10AEDT,M10.1.0,M4.1.0/3");
        assert_eq!(shown(&sydney, 1_735_689_600), "2025-01-01 11:00");
        assert_eq!(shown(&sydney, 1_751_328_000), "2025-07-01 10:00");
        assert_eq!(shown(&ruled("<+0545>-5:45"), 0), "1970-01-01 05:45");
        assert_eq!(shown(&ruled("EST5EDT,M3.2.0,M11.1.0"), 1_751_328_000), "2025-06-30 20:00");
        assert_eq!(shown(&Zone::default(), 86_399), "1970-01-01 23:59");
        for wrong in ["", "C", "CET", "CET-1CEST,J60,J300", "CET-999", "<+05"] {
            assert_eq!(Rule::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_zone_file_is_read_with_its_changes_and_its_rule() {
        let header = |times: u8| {
            let mut head = b"TZif2".to_vec();
            head.extend([0; 15]);
            head.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, times, 0, 0, 0, 2, 0, 0, 0, 4]);
            head
        };
        let types = [0, 0, 0, 60, 0, 0, 0, 0, 14, 16, 0, 0];
        let mut file = header(0);
        file.extend(types);
        file.extend(b"LMT\0");
        file.extend(header(1));
        file.extend(1_000_000i64.to_be_bytes());
        file.push(1);
        file.extend(types);
        file.extend(b"LMT\0\nCET-1CEST,M3.5.0,M10.5.0/3\n");
        let zone = Zone::parse(&file).unwrap();
        assert_eq!((zone.first, zone.changes.as_slice()), (60, [(1_000_000, 3600)].as_slice()));
        assert_eq!((zone.offset(0), zone.offset(1_751_328_000)), (60, 7200));
        for len in 0..file.len() - 40 {
            assert_eq!(Zone::parse(&file[..len]), None, "cut at {len}");
        }
    }
}
