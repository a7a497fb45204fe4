//! Rules that come with the program; `[rules] packs` switches them on.
//!
//! Each is a Prometheus rule file under `assets/rules` with a promtool unit test
//! beside it, so that it can be taken out, changed, and used as a file.

/// Name and text, sorted by name.
const PACKS: [(&str, &str); 11] = [
    ("billing", include_str!("../../assets/rules/billing.yml")),
    ("devices", include_str!("../../assets/rules/devices.yml")),
    ("emqx", include_str!("../../assets/rules/emqx.yml")),
    ("events", include_str!("../../assets/rules/events.yml")),
    ("gateway", include_str!("../../assets/rules/gateway.yml")),
    ("host", include_str!("../../assets/rules/host.yml")),
    (
        "ingestion",
        include_str!("../../assets/rules/ingestion.yml"),
    ),
    (
        "mosquitto",
        include_str!("../../assets/rules/mosquitto.yml"),
    ),
    ("nats", include_str!("../../assets/rules/nats.yml")),
    ("pulse", include_str!("../../assets/rules/pulse.yml")),
    ("scaling", include_str!("../../assets/rules/scaling.yml")),
];

/// The names of all packs.
pub fn names() -> impl Iterator<Item = &'static str> {
    PACKS.iter().map(|(name, _)| *name)
}

/// The rule file of a pack.
pub fn text(name: &str) -> Option<&'static str> {
    let pack = PACKS.iter().find(|(known, _)| *known == name);
    pack.map(|(_, text)| *text)
}

/// The file that a pack's groups name: no path on disk has this form.
pub fn file(name: &str) -> String {
    format!("pack:{name}.yml")
}
