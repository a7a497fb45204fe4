//! Colours of series and states, as the style sheet knows them.
//!
//! A file may fix a colour by Grafana's names or by hex digits; the plain names
//! of traffic lights become the states of our own theme. Anything else is not
//! let through, because it would end up in a style attribute.

/// A colour that is safe to put into markup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Color {
    /// A place in the palette of series; places beyond 8 repeat with dashes.
    Slot(usize),
    /// Good.
    Ok,
    /// Degraded.
    Warn,
    /// Bad.
    Crit,
    /// The plain text colour: says nothing.
    Text,
    /// `#` and hex digits.
    Hex(String),
}

impl Color {
    /// Reads a colour of a dashboard file; `None` when it is not one we know.
    pub fn parse(text: &str) -> Option<Color> {
        let text = text.trim();
        if text.strip_prefix('#').is_some_and(is_hex) {
            return Some(Color::Hex(text.to_ascii_lowercase()));
        }
        if text.starts_with("rgb") {
            return rgb(text);
        }
        match text {
            "green" => Some(Color::Ok),
            "yellow" | "orange" => Some(Color::Warn),
            "red" => Some(Color::Crit),
            "blue" => Some(Color::Slot(0)),
            "purple" => Some(Color::Slot(4)),
            "text" | "white" | "black" | "transparent" | "super-light-gray" => Some(Color::Text),
            _ => named(text),
        }
    }

    /// The value of a custom property: a variable of the style sheet or hex digits.
    pub fn css(&self) -> String {
        match self {
            Color::Slot(slot) => format!("var(--s{})", slot % 8 + 1),
            Color::Ok => "var(--ok)".to_owned(),
            Color::Warn => "var(--warn)".to_owned(),
            Color::Crit => "var(--crit)".to_owned(),
            Color::Text => "var(--text)".to_owned(),
            Color::Hex(hex) => hex.clone(),
        }
    }

    /// How often the palette has been used up: 0 is a plain line, 1 and 2 are dashed.
    pub fn dash(&self) -> usize {
        match self {
            Color::Slot(slot) => (slot / 8).min(2),
            _ => 0,
        }
    }

    /// The word of the state that this colour stands for, if it is one.
    pub fn state(&self) -> Option<&'static str> {
        match self {
            Color::Ok => Some("ok"),
            Color::Warn => Some("warn"),
            Color::Crit => Some("crit"),
            _ => None,
        }
    }
}

fn is_hex(digits: &str) -> bool {
    matches!(digits.len(), 3 | 4 | 6 | 8) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `rgb(1, 2, 3)` and `rgba(1, 2, 3, 0.5)`; the transparency is left out.
fn rgb(text: &str) -> Option<Color> {
    let inner = text.split_once('(')?.1.strip_suffix(')')?;
    let parts: Vec<u8> = inner
        .split(',')
        .take(3)
        .map_while(|part| part.trim().parse().ok())
        .collect();
    let [r, g, b] = parts.try_into().ok()?;
    Some(Color::Hex(format!("#{r:02x}{g:02x}{b:02x}")))
}

/// Shades of Grafana's palette: super-light, light, plain, semi-dark, dark.
fn named(text: &str) -> Option<Color> {
    const SHADES: [(&str, [&str; 5]); 6] = [
        (
            "red",
            ["#ffa6b0", "#ff7383", "#f2495c", "#e02f44", "#c4162a"],
        ),
        (
            "orange",
            ["#ffcb7d", "#ffb357", "#ff9830", "#ff780a", "#fa6400"],
        ),
        (
            "yellow",
            ["#fff899", "#ffee52", "#fade2a", "#f2cc0c", "#e0b400"],
        ),
        (
            "green",
            ["#c8f2c2", "#96d98d", "#73bf69", "#56a64b", "#37872d"],
        ),
        (
            "blue",
            ["#c0d8ff", "#8ab8ff", "#5794f2", "#3274d9", "#1f60c4"],
        ),
        (
            "purple",
            ["#deb6f2", "#ca95e5", "#b877d9", "#a352cc", "#8f3bb8"],
        ),
    ];
    let (shade, hue) = text.rsplit_once('-')?;
    let at = ["super-light", "light", "", "semi-dark", "dark"]
        .iter()
        .position(|name| *name == shade)?;
    let (_, shades) = SHADES.iter().find(|(name, _)| *name == hue)?;
    Some(Color::Hex(shades[at].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_digits_become_colours() {
        assert_eq!(Color::parse("green"), Some(Color::Ok));
        assert_eq!(Color::parse("dark-red"), Some(Color::Hex("#c4162a".into())));
        assert_eq!(Color::parse("#FFF"), Some(Color::Hex("#fff".into())));
        let rgba = Color::parse("rgba(237, 129, 40, 0.89)");
        assert_eq!(rgba, Some(Color::Hex("#ed8128".into())));
    }

    #[test]
    fn nothing_else_gets_into_markup() {
        for bad in [
            "#ff;x",
            "red;}",
            "url(x)",
            "rgb(1,2)",
            "#12",
            "rgb(1,2,3);a",
        ] {
            assert_eq!(Color::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_palette_repeats_with_dashes() {
        assert_eq!(Color::Slot(8).css(), "var(--s1)");
        assert_eq!(Color::Slot(8).dash(), 1);
        assert_eq!(Color::Slot(17).dash(), 2);
    }
}
