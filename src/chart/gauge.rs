//! The arc of a gauge: a track, the stretch up to the value, a ring of thresholds.

use std::fmt::Write as _;

use super::Color;

/// The arc begins and ends this many degrees below the horizontal.
const BELOW: f64 = 30.0;
const RADIUS: f64 = 88.0;
const RING: f64 = 98.0;

/// Draws a gauge whose value lies at `fraction` (0 to 1) of its range. Steps
/// are the fractions at which a colour begins, in order.
pub fn draw(fraction: f64, color: &Color, steps: &[(f64, Color)]) -> String {
    let mut svg = String::from(
        r#"<svg class="arc" viewBox="0 0 200 156" aria-hidden="true" focusable="false">"#,
    );
    let _ = write!(
        svg,
        r#"<path class="track" d="{}"/>"#,
        arc(RADIUS, 0.0, 1.0)
    );
    if fraction.is_finite() && fraction > 0.0 {
        let d = arc(RADIUS, 0.0, fraction.min(1.0));
        let _ = write!(
            svg,
            r#"<path class="value" style="--c:{}" d="{d}"/>"#,
            color.css()
        );
    }
    for (i, (from, color)) in steps.iter().enumerate() {
        let to = steps.get(i + 1).map_or(1.0, |next| next.0).min(1.0);
        let from = from.max(0.0);
        if steps.len() > 1 && to > from {
            let d = arc(RING, from, to);
            let _ = write!(
                svg,
                r#"<path class="ring" style="--c:{}" d="{d}"/>"#,
                color.css()
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

fn arc(radius: f64, from: f64, to: f64) -> String {
    let place = |fraction: f64| {
        let degrees = 180.0 + BELOW - fraction * (180.0 + 2.0 * BELOW);
        let angle = degrees.to_radians();
        (100.0 + radius * angle.cos(), 102.0 - radius * angle.sin())
    };
    let (x0, y0) = place(from);
    let (x1, y1) = place(to);
    let large = u8::from((to - from) * (180.0 + 2.0 * BELOW) > 180.0);
    format!("M{x0:.1} {y0:.1}A{radius} {radius} 0 {large} 1 {x1:.1} {y1:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arc_stays_within_its_range() {
        let empty = draw(f64::NAN, &Color::Ok, &[]);
        assert_eq!(empty.matches("<path").count(), 1);
        let full = draw(7.0, &Color::Crit, &[(0.0, Color::Ok), (0.8, Color::Crit)]);
        assert_eq!(full.matches("<path").count(), 4);
        assert!(full.contains("A88 88 0 1 1 176.2 146.0"), "{full}");
    }
}
