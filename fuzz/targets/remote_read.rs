//! Arbitrary bytes as a remote_read request and as a native histogram; a histogram that
//! is read can be written and read again, also as a chunk of a stream.

use pulse::codec::streamed::ChunkedResult;
use pulse::codec::{histogram, remote_read};
use pulse::model::Labels;

/// One input.
pub(crate) fn run(data: &[u8]) {
    if let Ok(request) = remote_read::request(data) {
        assert!(request.queries.len() <= data.len());
    }
    let Ok(Some(sample)) = histogram::read(data) else {
        return;
    };
    let mut written = Vec::new();
    histogram::write(&mut written, &sample);
    let again = histogram::read(&written).expect("it was just written");
    assert_eq!(again.as_ref(), Some(&sample));
    let mut result = ChunkedResult::new(0);
    result.push(&Labels::empty(), &[], &[sample]);
    assert_eq!(result.into_pieces().count(), 1);
}
