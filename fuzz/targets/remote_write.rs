//! Arbitrary bytes as a snappy block, and as an unpacked remote_write message:
//! nothing panics, nothing grows beyond its bound, and every label that is read
//! was there.
use pulse::codec::remote_write::{Part, Request, labels, unpack};

const BYTES_MAX: usize = 1 << 20;

fn read(message: &[u8]) {
    let mut request = Request::new(message);
    let mut samples = Vec::new();
    while let Ok(Some(part)) = request.next_part(&mut samples) {
        let Part::Series(series) = part else { continue };
        assert!(samples.len() <= message.len());
        assert!(series.labels.len() <= message.len());
        let texts = labels(&series.labels).flatten();
        let bytes: usize = texts.map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= series.labels.len());
    }
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    let mut message = Vec::new();
    if unpack(data, BYTES_MAX, &mut message).is_ok() {
        assert!(message.len() <= BYTES_MAX);
        read(&message);
    }
    read(data);
    let block = snap::raw::Encoder::new()
        .compress_vec(data)
        .expect("it fits");
    unpack(&block, data.len(), &mut message).expect("it was just packed");
    assert_eq!(message, data);
}
