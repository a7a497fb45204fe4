//! What a query gives.

use std::sync::Arc;

use crate::model::{Histogram, HistogramSample, Labels, Sample, Timestamp};

/// One element of an instant vector.
#[derive(Clone, PartialEq, Debug)]
pub struct VectorSample {
    /// The element's labels.
    pub labels: Labels,
    /// Its value; 0 when it is a histogram.
    pub v: f64,
    /// Its value when that is a native histogram.
    pub histogram: Option<Arc<Histogram>>,
}

/// One series of a range query's answer.
#[derive(Clone, PartialEq, Debug)]
pub struct RangeSeries {
    /// The series' labels.
    pub labels: Labels,
    /// One sample per step that had a number for a value.
    pub samples: Vec<Sample>,
    /// One per step that had a native histogram for a value.
    pub histograms: Vec<HistogramSample>,
}

/// A query's value. An instant query gives any kind at `t`, a range query a matrix.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// One number.
    Scalar {
        /// The evaluation time.
        t: Timestamp,
        /// The number.
        v: f64,
    },
    /// One text.
    String {
        /// The evaluation time.
        t: Timestamp,
        /// The text.
        v: String,
    },
    /// Elements at one time.
    Vector {
        /// The evaluation time, which is also the time of every element.
        t: Timestamp,
        /// The elements, in the order in which they are shown.
        samples: Vec<VectorSample>,
    },
    /// Series over time, sorted by labels.
    Matrix(Vec<RangeSeries>),
}

/// A query's value with what the engine has to say about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// The value.
    pub value: Value,
    /// Something is probably wrong with the query or the data.
    pub warnings: Vec<String>,
    /// Something is worth knowing.
    pub infos: Vec<String>,
    /// Something could not be read and is left out; the warnings say what.
    pub is_incomplete: bool,
    /// How many samples were read.
    pub samples_read: u64,
    /// How many samples each step looked at; empty unless that was asked for.
    pub step_samples: Vec<u64>,
    /// How many values were held at once, at most.
    pub samples_peak: usize,
}
