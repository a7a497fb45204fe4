//! What is shown is the configuration, and no secret.

use super::*;
use crate::config::reading;

#[test]
fn what_is_shown_reads_as_the_same_configuration() {
    for text in ["", &reading::tests::everything()] {
        let mut config = reading::read("c.toml", text).unwrap();
        // What is not shown: the tree, and the values of headers.
        config.alerting = Alerting {
            receiver: config.alerting.receiver,
            ..Alerting::default()
        };
        for webhook in &mut config.destination.webhook {
            for value in webhook.headers.values_mut() {
                "***".clone_into(value);
            }
        }
        let shown = config.shown();
        let again = reading::read("shown.toml", &shown).unwrap();
        assert!(again.tell(Vec::new()).is_empty(), "{shown}");
        assert_eq!(again, config, "{shown}");
    }
}

#[test]
fn no_secret_is_shown_whatever_holds_it() {
    let text = "[auth]\ntoken = \"sekrit\"\n\
        [[source.mqtt]]\nname = \"m\"\nurl = \"mqtt://h\"\nusername = \"u\"\npassword = \"sekrit\"\n\
        [[source.nats]]\nname = \"n\"\nurl = \"nats://h\"\ntoken = \"sekrit\"\nnkey = \"sekrit\"\n\
        password = \"sekrit\"\n\
        [[destination.webhook]]\nname = \"w\"\nurl = \"http://h/?key=sekrit\"\nsecret = \"sekrit\"\n\
        secret_old = \"sekrit\"\nbearer_token = \"sekrit\"\nheaders = { X-Key = \"sekrit\" }\n\
        [[tenant]]\nid = \"t\"\ntoken = \"sekrit\"\n";
    let shown = reading::read("c.toml", text).unwrap().shown();
    assert!(!shown.contains("sekrit"), "{shown}");
    assert_eq!(shown.matches("***").count(), 11, "{shown}");
}

#[test]
fn texts_are_quoted_as_toml_reads_them() {
    for text in ["", "a\"b\\c", "\u{7f}\u{1}\t\n", "ünï"] {
        let read: toml::Table = toml::from_str(&format!("a = {}", quoted(text))).unwrap();
        assert_eq!(read["a"].as_str(), Some(text));
    }
}
