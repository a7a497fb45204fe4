//! Passwords and tokens: never printed, read again at each reload.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Deserializer, de};

/// Where a secret comes from: `{ file = "..." }`, `{ env = "..." }`, or a literal.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// Written into the configuration itself.
    Literal(String),
}

impl Secret {
    /// Reads the secret.
    ///
    /// # Errors
    /// When the file cannot be read or the variable is not set.
    pub fn read(&self) -> anyhow::Result<String> {
        match self {
            Secret::Literal(text) => Ok(text.clone()),
            Secret::Env(name) => {
                std::env::var(name).with_context(|| format!("read secret from ${name}"))
            }
            Secret::File(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("read secret from {}", path.display()))?;
                Ok(text.lines().next().unwrap_or_default().to_owned())
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::File(path) => write!(f, "file {}", path.display()),
            Secret::Env(name) => write!(f, "${name}"),
            Secret::Literal(_) => f.write_str("***"),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> de::Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ file = \"...\" }, { env = \"...\" } or a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::Literal(text.to_owned()))
    }

    // The usual messages would show what was written.
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(unquoted())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(unquoted())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let secret = match map.next_key::<String>()?.as_deref() {
            Some("file") => Secret::File(map.next_value()?),
            Some("env") => Secret::Env(map.next_value()?),
            Some(other) => return Err(de::Error::unknown_field(other, &["file", "env"])),
            None => return Err(de::Error::missing_field("file")),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(de::Error::custom("expected one of file and env, not both")),
        }
    }
}

fn unquoted<E: de::Error>() -> E {
    E::custom("a number, expected { file = \"...\" }, { env = \"...\" } or a string in quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_never_printed() {
        assert_eq!(format!("{:?}", Secret::Literal("hunter2".into())), "***");
        for text in ["[auth]\ntoken = 12345", "[auth]\ntoken = 123.45"] {
            let err = crate::config::Config::parse(text, "c")
                .unwrap_err()
                .to_string();
            assert!(err.contains("in quotes") && !err.contains("123"), "{err}");
        }
        let text = "route: {receiver: a}\nreceivers:\n- name: a\n  webhook_configs:\n  - url: http://h\n    \
            http_config: {basic_auth: {username: 1001, password: 0123}}\n";
        crate::config::Alertmanager::parse(text, "am.yml").unwrap();
    }
}
