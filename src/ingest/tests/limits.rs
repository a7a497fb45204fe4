//! The bounds of `[limits]`, as messages meet them.

use super::*;

/// The verdicts on a message of each of these devices, all of one value.
async fn of_devices(desk: &Desk, devices: &[&str]) -> Vec<Verdict> {
    let topic = |device: &&str| format!("tenants/acme/devices/{device}/telemetry");
    let payload = format!("{{\"ts\":{NOW},\"v\":1}}");
    let messages = devices.iter().map(|d| message(&topic(d), &payload));
    desk.send(messages.collect()).await
}

#[tokio::test]
async fn new_series_are_bounded_by_the_hour() {
    desk!(_dir, desk, "[limits]\nnew_series_per_tenant_per_hour = 2\n");
    let limit = Verdict::Rejected("series_limit");
    let verdicts = of_devices(&desk, &["a", "b", "c", "a"]).await;
    let known = Verdict::Committed;
    assert_eq!(verdicts, [known, known, limit, known]);
    assert_eq!(desk.stored(), ["v/a 0=1", "v/b 0=1"]);
    assert_eq!(desk.rejected("series_limit"), 1);
    desk.close().await;
}

#[tokio::test]
async fn labels_are_bounded_in_number_and_length() {
    let long = "a_device_with_a_long_name";
    for (text, devices) in [
        ("[limits]\nlabels_max = 2\n", ["a", "b"]),
        ("[limits]\nlabel_name_bytes_max = 8\n", ["a", "b"]),
        ("[limits]\nlabel_value_bytes_max = 20\n", [long, long]),
    ] {
        desk!(_dir, desk, text);
        let verdicts = of_devices(&desk, &devices).await;
        assert_eq!(verdicts, [Verdict::Rejected("parse"); 2], "{text}");
        assert!(desk.stored().is_empty());
        assert_eq!((desk.rejected("parse"), desk.dead().len()), (2, 2));
        desk.close().await;
    }
}

#[tokio::test]
async fn values_of_a_label_overflow() {
    desk!(_dir, desk, "[limits]\nlabel_values_max = 2\n");
    let verdicts = of_devices(&desk, &["a", "b", "c", "d"]).await;
    // The third and the fourth are one series, and the same sample.
    assert_eq!(verdicts, [Verdict::Committed; 4]);
    assert_eq!(desk.stored(), ["v/__overflow__ 0=1", "v/a 0=1", "v/b 0=1"]);
    assert_eq!(desk.metrics.store.label_values_capped.get(), 1);
    desk.close().await;
}

#[tokio::test]
async fn samples_are_bounded_by_the_second_for_each_tenant_and_for_all() {
    desk!(
        _dir,
        desk,
        "[limits]\nsamples_per_second = 1\nsamples_per_second_all = 2\n"
    );
    let send = async |tenant: &str, ts: i64| {
        let topic = format!("tenants/{tenant}/devices/d/telemetry");
        let values: Vec<String> = (0..10).map(|n| format!("\"v{n}\":1")).collect();
        let payload = format!("{{\"ts\":{},{}}}", NOW + ts, values.join(","));
        desk.send_one(&topic, &payload).await
    };
    let quota = Verdict::Rejected("quota");
    // Ten seconds' worth at once, of each; twice that of all.
    assert_eq!(send("acme", 0).await, Verdict::Committed);
    assert_eq!(send("acme", 1).await, quota);
    assert_eq!(send("b", 0).await, Verdict::Committed);
    assert_eq!(send("c", 0).await, quota);
    desk.clock.advance(Duration::from_secs(10));
    assert_eq!(send("acme", 1).await, Verdict::Committed);
    assert_eq!(desk.rejected("quota"), 1, "of this tenant");
    assert!(desk.dead().is_empty());
    desk.close().await;
}
