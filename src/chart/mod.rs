//! Series to pictures: scalable vector graphics that a style sheet colours.
//!
//! Owns nothing. A plot is drawn on a canvas of 2400 by 1000 units that the page
//! stretches to its place; strokes do not scale, and labels are not part of the
//! picture but text that the page puts at percentages. So text is never
//! distorted and a change of theme needs no new data.
//!
//! It must never do I/O, read a clock, or let a text of the data into markup:
//! a picture holds numbers and class names only.

pub mod color;
pub mod gauge;
pub mod path;
pub mod plot;
pub mod scale;
pub mod stack;
pub mod ticks;
pub mod units;

pub use color::Color;
pub use plot::{DrawAs, Line, Plot, PlotOptions, Threshold};
pub use units::{Format, Formatted};
