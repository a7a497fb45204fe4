//! A range query's answer as a small chart of characters: the shape of a few series
//! at a glance, for a terminal without a browser.
//!
//! Braille characters give each cell two columns and four rows of dots. Series are
//! told apart by letters in the legend and, where the terminal shows them, colours.

use std::fmt::Write as _;

/// Cells of the plot, without the scale on its left.
const WIDTH: usize = 64;
const HEIGHT: usize = 12;
/// More series would be a blot.
const SERIES_MAX: usize = 8;
/// The colours of ANSI terminals, one for each series.
const COLOURS: [u8; SERIES_MAX] = [36, 33, 32, 35, 34, 31, 96, 93];

/// A series to draw: its name, its times in seconds, its values.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Draws the first few series over a common scale. `coloured`: with escape codes.
pub(super) fn plot(lines: &[Line], coloured: bool) -> String {
    let shown = &lines[..lines.len().min(SERIES_MAX)];
    let finite = || {
        let points = shown.iter().flat_map(|line| &line.points);
        points.copied().filter(|(_, v)| v.is_finite())
    };
    let Some((first_t, first_v)) = finite().next() else {
        return "nothing to draw".to_owned();
    };
    let mut scale = Scale {
        from: first_t,
        to: first_t,
        low: first_v,
        high: first_v,
    };
    for (t, v) in finite() {
        scale.from = scale.from.min(t);
        scale.to = scale.to.max(t);
        scale.low = scale.low.min(v);
        scale.high = scale.high.max(v);
    }
    let mut canvas = Canvas::new();
    for (series, line) in shown.iter().enumerate() {
        canvas.line(series, &line.points, &scale);
    }
    let mut out = canvas.text(&scale, coloured);
    for (series, line) in shown.iter().enumerate() {
        let mark = paint(series, "⣿", coloured);
        let last = line.points.last().map_or(f64::NAN, |(_, v)| *v);
        write!(out, "\n{mark} {}  {}", line.name, short(last)).expect("writing to a String works");
    }
    if lines.len() > shown.len() {
        let more = lines.len() - shown.len();
        write!(out, "\nand {more} more").expect("writing to a String works");
    }
    out
}

struct Scale {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Scale {
    /// The dot of a point, counted from the upper left corner.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "fractions between 0 and 1 of small sizes"
    )]
    fn dot(&self, (t, v): (f64, f64)) -> (usize, usize) {
        let place = |part: f64, whole: f64, dots: usize| {
            let fraction = if whole > 0.0 { part / whole } else { 0.5 };
            (fraction.clamp(0.0, 1.0) * (dots - 1) as f64).round() as usize
        };
        let x = place(t - self.from, self.to - self.from, 2 * WIDTH);
        let y = place(self.high - v, self.high - self.low, 4 * HEIGHT);
        (x, y)
    }
}

/// Dots and the series that drew last in each cell.
struct Canvas {
    dots: Vec<u8>,
    owner: Vec<usize>,
}

impl Canvas {
    fn new() -> Canvas {
        Canvas {
            dots: vec![0; WIDTH * HEIGHT],
            owner: vec![0; WIDTH * HEIGHT],
        }
    }

    /// Draws points and joins neighbours. A NaN leaves a gap.
    fn line(&mut self, series: usize, points: &[(f64, f64)], scale: &Scale) {
        let mut previous: Option<(usize, usize)> = None;
        for point in points {
            if !point.1.is_finite() {
                previous = None;
                continue;
            }
            let (x, y) = scale.dot(*point);
            let (from_x, from_y) = previous.unwrap_or((x, y));
            let steps = x.abs_diff(from_x).max(y.abs_diff(from_y)).max(1);
            for step in 0..=steps {
                let on = |from: usize, to: usize| (from * (steps - step) + to * step) / steps;
                self.dot(series, on(from_x, x), on(from_y, y));
            }
            previous = Some((x, y));
        }
    }

    fn dot(&mut self, series: usize, x: usize, y: usize) {
        /// The bits of a Braille character, by column and row.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let cell = y / 4 * WIDTH + x / 2;
        self.dots[cell] |= BITS[x % 2][y % 4];
        self.owner[cell] = series;
    }

    fn text(&self, scale: &Scale, coloured: bool) -> String {
        let mut out = String::new();
        let labels = [scale.high, f64::midpoint(scale.low, scale.high), scale.low].map(short);
        let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        for row in 0..HEIGHT {
            let label = match row {
                0 => labels[0].as_str(),
                row if row == HEIGHT / 2 => labels[1].as_str(),
                row if row == HEIGHT - 1 => labels[2].as_str(),
                _ => "",
            };
            write!(out, "{label:>width$} │").expect("writing to a String works");
            let cells = row * WIDTH..(row + 1) * WIDTH;
            for (dots, owner) in self.dots[cells.clone()].iter().zip(&self.owner[cells]) {
                let c = char::from_u32(0x2800 + u32::from(*dots)).expect("a Braille character");
                if *dots == 0 {
                    out.push(' ');
                } else {
                    out.push_str(&paint(*owner, c.encode_utf8(&mut [0; 4]), coloured));
                }
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        let time = |t| crate::model::Timestamp::from_secs_f64(t).to_rfc3339();
        let (from, to) = (time(scale.from), time(scale.to));
        let room = WIDTH.saturating_sub(from.len());
        write!(out, "{:>width$} └{from}{to:>room$}", "").expect("writing to a String works");
        out
    }
}

fn paint(series: usize, text: &str, coloured: bool) -> String {
    if coloured {
        format!("\x1b[{}m{text}\x1b[0m", COLOURS[series % SERIES_MAX])
    } else {
        text.to_owned()
    }
}

/// A number in few characters: `1.25k`, `3.4M`, `0.002`.
fn short(v: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    if !v.is_finite() {
        return v.to_string();
    }
    for (size, unit) in UNITS {
        if v.abs() >= size && v.abs() < size * 1e3 {
            return format!("{}{unit}", digits(v / size));
        }
    }
    if v != 0.0 && !(1e-3..1e15).contains(&v.abs()) {
        return format!("{v:.1e}");
    }
    digits(v)
}

fn digits(v: f64) -> String {
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, values: &[f64]) -> Line {
        let points = values.iter().enumerate();
        Line {
            name: name.to_owned(),
            points: points.map(|(i, v)| (i as f64 * 60.0, *v)).collect(),
        }
    }

    #[test]
    fn a_rise_goes_from_the_lower_left_to_the_upper_right() {
        let text = plot(&[line("up{a=\"b\"}", &[0.0, 1000.0])], false);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), HEIGHT + 2);
        assert!(
            rows[0].starts_with(" 1k │") && rows[0].ends_with('⠉'),
            "{}",
            rows[0]
        );
        assert!(rows[HEIGHT / 2].starts_with("500 │"), "{text}");
        assert!(rows[HEIGHT - 1].starts_with("  0 │⡠"), "{text}");
        assert!(rows[HEIGHT].contains("1970-01-01T00:00:00.000Z"), "{text}");
        assert!(rows[HEIGHT].ends_with("1970-01-01T00:01:00.000Z"), "{text}");
        assert_eq!(rows[HEIGHT + 1], "⣿ up{a=\"b\"}  1k");
    }

    #[test]
    fn flat_missing_and_many_series_are_drawn() {
        let flat = plot(&[line("x", &[5.0, 5.0, 5.0])], false);
        assert!(flat.contains("5 │"), "{flat}");
        let gap = plot(&[line("x", &[1.0, f64::NAN, f64::INFINITY, 2.0])], false);
        let drawn = |c: &char| ('\u{2801}'..='\u{28ff}').contains(c) && *c != '⣿';
        assert_eq!(gap.chars().filter(drawn).count(), 2, "{gap}");
        assert_eq!(plot(&[line("x", &[f64::NAN])], false), "nothing to draw");
        assert_eq!(plot(&[], false), "nothing to draw");
        let many: Vec<Line> = (0..10).map(|i| line("x", &[f64::from(i)])).collect();
        assert!(plot(&many, false).ends_with("and 2 more"));
        assert!(plot(&many, true).contains("\x1b[36m"));
    }

    #[test]
    fn numbers_are_short() {
        for (v, want) in [
            (0.0, "0"),
            (1.25, "1.25"),
            (-1234.0, "-1.234k"),
            (5e6, "5M"),
            (1e18, "1.0e18"),
            (0.00012, "1.2e-4"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(short(v), want);
        }
    }
}
