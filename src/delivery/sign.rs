//! Signs requests as Standard Webhooks says, so that a receiver can tell ours from others'.
//!
//! `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over
//! `id.timestamp.body`; while a secret is being replaced it holds two, separated by
//! a space, and a receiver may check either.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

/// What a secret in base64 starts with.
const PREFIX: &str = "whsec_";

/// The keys of one destination, the current one first.
#[derive(Clone, Default)]
pub(super) struct Signer {
    keys: Vec<hmac::Key>,
}

impl Signer {
    /// Takes secrets: `whsec_` and base64 of the key, or any text as the key itself.
    ///
    /// # Errors
    /// When a secret is empty, or starts with `whsec_` and goes on with other than base64.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Signer, String> {
        let keys = secrets.into_iter().map(key).collect::<Result<_, _>>()?;
        Ok(Signer { keys })
    }

    /// The value of `webhook-signature`; `None` without a secret.
    pub(super) fn sign(&self, id: &str, timestamp_secs: i64, body: &[u8]) -> Option<String> {
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let mut mac = hmac::Context::with_key(key);
                mac.update(format!("{id}.{timestamp_secs}.").as_bytes());
                mac.update(body);
                format!("v1,{}", BASE64.encode(mac.sign()))
            })
            .collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

fn key(secret: &str) -> Result<hmac::Key, String> {
    let bytes = match secret.strip_prefix(PREFIX) {
        Some(encoded) => BASE64
            .decode(encoded)
            .map_err(|_| format!("not base64 after {PREFIX}, expected {PREFIX} and base64"))?,
        None => secret.as_bytes().to_vec(),
    };
    if bytes.is_empty() {
        return Err("empty secret, expected whsec_ and base64, or any text".to_owned());
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_the_published_example() {
        // The example of the Standard Webhooks specification's reference libraries.
        let signer = Signer::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        assert_eq!(
            signer.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned())
        );
    }

    #[test]
    fn two_secrets_give_two_signatures_and_none_gives_none() {
        let both = Signer::new(["new", "old"]).unwrap();
        let signature = both.sign("id", 1, b"x").unwrap();
        let [new, old]: [&str; 2] = signature.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(
            Signer::new(["new"]).unwrap().sign("id", 1, b"x").unwrap(),
            new
        );
        assert_eq!(
            Signer::new(["old"]).unwrap().sign("id", 1, b"x").unwrap(),
            old
        );
        assert_eq!(Signer::default().sign("id", 1, b"x"), None);
    }

    #[test]
    fn bad_secrets_are_refused() {
        for secret in ["", "whsec_", "whsec_%%%"] {
            assert!(Signer::new([secret]).is_err(), "{secret:?}");
        }
    }
}
